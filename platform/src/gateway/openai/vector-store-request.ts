/** What the vector store routes accept. These routes are ours, so an unknown field is refused by name. */
import { z } from 'zod';
import { BulkheadError } from '../../errors/bulkhead-error.ts';
import type { Attributes } from '../../tenancy/attributes.ts';
import type { AttachedFile, ChunkingStrategy } from '../../tenancy/capabilities.ts';
import { metadataSchema } from './chat-request.ts';

const expiresAfter = z.strictObject({ anchor: z.literal('last_active_at'), days: z.number().int().min(1).max(365) });
const chunking = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('auto') }),
  z.strictObject({
    type: z.literal('static'),
    static: z.strictObject({
      max_chunk_size_tokens: z.number().int().min(100).max(4_096),
      chunk_overlap_tokens: z.number().int().min(0).max(2_048),
    }),
  }),
]);
const attributes = z
  .record(z.string().min(1).max(64), z.union([z.string().max(512), z.number(), z.boolean()]))
  .refine((value) => Object.keys(value).length <= 16, 'takes at most 16 keys');
const fileId = z.string().min(1).max(128);
const name = z.string().max(256);

export const newVectorStoreSchema = z.strictObject({
  name: name.nullish(),
  description: z.string().max(512).nullish(),
  file_ids: z.array(fileId).max(500).optional(),
  expires_after: expiresAfter.nullish(),
  chunking_strategy: chunking.nullish(),
  metadata: metadataSchema.nullish(),
});
export const vectorStoreChangesSchema = z.strictObject({
  name: name.nullish(),
  expires_after: expiresAfter.nullish(),
  metadata: metadataSchema.nullish(),
});
export const attachFileSchema = z.strictObject({
  file_id: fileId,
  attributes: attributes.nullish(),
  chunking_strategy: chunking.nullish(),
});
export const attributesSchema = z.strictObject({ attributes: attributes.nullable() });
export const fileBatchSchema = z.strictObject({
  file_ids: z.array(fileId).min(1).max(2_000).optional(),
  files: z.array(attachFileSchema).min(1).max(2_000).optional(),
  attributes: attributes.nullish(),
  chunking_strategy: chunking.nullish(),
});
export const searchSchema = z.strictObject({
  query: z.union([z.string().min(1).max(4_096), z.array(z.string().min(1).max(4_096)).min(1).max(8)]),
  max_num_results: z.number().int().min(1).max(50).optional(),
  filters: z.unknown().optional(),
  ranking_options: z
    .strictObject({
      ranker: z.enum(['none', 'auto', 'default-2024-11-15']).optional(),
      score_threshold: z.number().min(0).max(1).optional(),
    })
    .nullish(),
  rewrite_query: z.boolean().nullish(),
});

export type ChunkingRequest = z.output<typeof chunking> | null | undefined;

/** 800/400 tokens unless said otherwise; the overlap is at most half a chunk. */
export function chunkingOf(request: ChunkingRequest): ChunkingStrategy {
  if (!request || request.type === 'auto') return { type: 'auto', maxChunkTokens: 800, overlapTokens: 400 };
  const { max_chunk_size_tokens: maxChunkTokens, chunk_overlap_tokens: overlapTokens } = request.static;
  if (overlapTokens > maxChunkTokens / 2) {
    throw new BulkheadError('invalid_value', `the overlap may be at most half of ${maxChunkTokens} tokens; it is ${overlapTokens}`, {
      param: 'chunking_strategy.static.chunk_overlap_tokens',
    });
  }
  return { type: 'static', maxChunkTokens, overlapTokens };
}

/** `file_ids` xor `files`, each file with its own or the batch's attributes and chunking. */
export function batchFilesOf(body: z.output<typeof fileBatchSchema>): readonly AttachedFile[] {
  if ((body.file_ids === undefined) === (body.files === undefined)) {
    throw new BulkheadError('invalid_value', 'give exactly one of file_ids and files', { param: 'file_ids' });
  }
  const whole = { attributes: (body.attributes ?? {}) as Attributes, chunking: chunkingOf(body.chunking_strategy) };
  if (body.file_ids !== undefined) return body.file_ids.map((id) => ({ fileId: id, ...whole }));
  return (body.files ?? []).map((file) => ({
    fileId: file.file_id,
    attributes: file.attributes ?? whole.attributes,
    chunking: file.chunking_strategy ? chunkingOf(file.chunking_strategy) : whole.chunking,
  }));
}
