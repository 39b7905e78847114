/**
 * Embeddings for ingestion: the tenant's own work behind the requests, so it takes its turn in the fair queue and is metered, but
 * holds no reservation: a document is larger than a minute's limit, and refusing half of it would help nobody.
 */
import { assert } from '../primitives/assert.ts';
import type { IdSource } from '../primitives/ids.ts';
import type { TenantScope } from '../tenancy/tenant-scope.ts';
import type { InferenceParts } from './serve-inference.ts';

export interface IngestionEmbedding {
  readonly scope: TenantScope;
  readonly model: string;
  readonly texts: readonly string[];
  readonly signal: AbortSignal;
}

/** Vectors in the order of the texts. Throws what the provider throws, or the queue's refusals. */
export async function serveIngestionEmbedding(
  parts: InferenceParts & { readonly ids: IdSource },
  { scope, model, texts, signal }: IngestionEmbedding,
): Promise<readonly Float32Array[]> {
  // The store's model, whatever the tenant's policy grants to its own calls.
  const route = parts.inference.resolve(model, {});
  assert(route !== undefined, 'the embedding model of a store is configured');
  const inputTokens = texts.reduce((sum, text) => sum + Math.ceil(Buffer.byteLength(text) / 4), 0);
  const { tenantId, user, keyId } = scope.principal;
  const ticket = {
    poolId: route.poolId,
    tenantId,
    user,
    weight: scope.policy.weight,
    inputTokens,
    predictedOutputTokens: 0,
    bytes: inputTokens * 4,
  };
  const permit = await parts.queue.acquire(ticket, signal);
  try {
    const requestId = parts.ids.next('req_');
    const body = { model, input: texts, encoding_format: 'float' };
    const { completion, source } = await parts.inference.embed(route, { body, requestId, cacheSalt: parts.cacheSalt(scope) }, signal);
    const usage = completion.usage ?? { inputTokens, outputTokens: 0 };
    const estimated = completion.usage === undefined;
    const outcome = 'completed';
    parts.meter.record({
      tenantId,
      keyId,
      user,
      requestId,
      endpoint: 'ingestion',
      model,
      serviceTier: 'default',
      usage,
      estimated,
      outcome,
      ...source,
    });
    permit.finish({ inputTokens: usage.inputTokens, outputTokens: 0 });
    const items = completion.parsed['data'] as readonly { readonly embedding: readonly number[] }[];
    return items.map((item) => Float32Array.from(item.embedding));
  } finally {
    permit.cancel();
  }
}
