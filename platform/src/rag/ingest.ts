/**
 * Door of retrieval-augmented generation: ingest -> parse -> chunk -> embed -> index -> retrieve -> assemble.
 *
 * Before: a file was attached to a vector store and a job was enqueued with it. After: its chunks can be found.
 * Invariants: all chunks of a file become visible in one transaction or none ever does; a file that was deleted or whose batch was
 * cancelled meanwhile leaves nothing behind; bytes of a tenant meet only parsers and the embedder, never another tenant's transaction.
 *
 * Chunks are written in short transactions while they are hidden, and one more makes them visible. A single long transaction would
 * be simpler, but the embedded database runs one transaction at a time and every tenant would wait for it.
 */
import { createHash } from 'node:crypto';
import { BulkheadError } from '../errors/bulkhead-error.ts';
import type { ChunkingStrategy } from '../tenancy/capabilities.ts';
import type { Principal } from '../tenancy/principal.ts';
import { type Embedder, embedTexts } from './embed-texts.ts';
import type { FileReference } from './job-queue.ts';
import type { DocumentReader } from './parse/document-reader.ts';
import type { ReadChunk } from './parse/reading.ts';

/** Port: the part of a tenant's stores that ingestion works on. */
export interface IngestionShelf {
  /**
   * Takes a file over for one attempt and drops what an earlier attempt left. Undefined when there is nothing to do: the file is gone,
   * cancelled, or already indexed. An attempt begun later wins over this one.
   */
  begin(reference: FileReference): Promise<IngestionDraft | undefined>;
  /** Marks a file failed and says why, unless it is gone or finished. Leaves none of its chunks. */
  fail(reference: FileReference, error: IngestionFailure): Promise<void>;
}

export interface IngestionDraft {
  readonly filename: string;
  readonly chunking: ChunkingStrategy;
  readonly embeddingModel: string;
  readonly embeddingDimensions: number;
  readBody(): Promise<Uint8Array>;
  /**
   * Keeps the chunks that an earlier attempt parked, if they are the first of these texts (`digest` says so), and drops them if not. Returns how many.
   * Before anything is appended.
   */
  resume(digest: string, texts: readonly string[]): Promise<number>;
  /** Leaves what was appended to a later attempt of the same text. */
  park(digest: string): Promise<void>;
  /** Writes hidden chunks, at most `appendChunksMax`. False when this attempt no longer holds the file; nothing was written then. */
  append(chunks: readonly EmbeddedChunk[]): Promise<boolean>;
  /** Makes every appended chunk visible. False when this attempt no longer holds the file. */
  publish(): Promise<boolean>;
}

export interface EmbeddedChunk {
  /** Position in the file, from 0. */
  readonly ordinal: number;
  readonly text: string;
  readonly embedding: Float32Array;
}

export interface IngestionFailure {
  readonly code: 'server_error' | 'unsupported_file' | 'invalid_file';
  readonly message: string;
}

export interface IngestionParts {
  readonly reader: DocumentReader;
  readonly embedderFor: (embeddingModel: string, principal: Principal) => Embedder | Promise<Embedder>;
  readonly chunksPerFileMax: number;
}

export type IngestionOutcome = 'indexed' | 'superseded';

/** Chunks of one embedding call and of one transaction; 100 rows keep the others' wait in the embedded database near 4 ms. */
export const appendChunksMax = 64;

/**
 * Indexes one file. `superseded`: it was deleted, cancelled or taken over meanwhile, and nothing of this attempt is left visible.
 * Throws document errors, `embedding_failed`, what the embedder throws, or the signal's reason; `failureOf` says which are final.
 */
export async function ingestFile(
  parts: IngestionParts,
  principal: Principal,
  work: { readonly draft: IngestionDraft; readonly signal: AbortSignal },
): Promise<IngestionOutcome> {
  const { draft, signal } = work;
  const { filename, chunking } = draft;
  const bytes = await draft.readBody();
  const document = await parts.reader.read({ filename, bytes, chunking, chunksMax: parts.chunksPerFileMax }, signal);
  const embedder = await parts.embedderFor(draft.embeddingModel, principal);
  const { chunks } = document;
  const digest = digestOf(chunks);
  try {
    const kept = await draft.resume(
      digest,
      chunks.map((chunk) => chunk.text),
    );
    if (!(await indexChunks({ draft, embedder, chunks, signal }, kept))) return 'superseded';
  } catch (error) {
    if (mustWait(error)) await draft.park(digest);
    throw error;
  }
  signal.throwIfAborted();
  return (await draft.publish()) ? 'indexed' : 'superseded';
}

interface Indexing {
  readonly draft: IngestionDraft;
  readonly embedder: Embedder;
  readonly chunks: readonly ReadChunk[];
  readonly signal: AbortSignal;
}

/** Embeds and appends from chunk `start` on. False when this attempt no longer holds the file. */
async function indexChunks({ draft, embedder, chunks, signal }: Indexing, start: number): Promise<boolean> {
  for (let first = start; first < chunks.length; ) {
    signal.throwIfAborted();
    const batch = callFrom(chunks, first, embedder.callTokensMax ?? Number.POSITIVE_INFINITY);
    const texts = batch.map((chunk) => chunk.text);
    const embeddings = await embedTexts(embedder, texts, { dimensions: draft.embeddingDimensions, signal });
    const ordinal = first;
    const embedded = batch.map(({ text }, index) => ({ ordinal: ordinal + index, text, embedding: embeddings[index] as Float32Array }));
    if (!(await draft.append(embedded))) return false;
    first += batch.length;
  }
  return true;
}

/** The next chunks that one call may embed: at least one. */
function callFrom(chunks: readonly ReadChunk[], first: number, tokensMax: number): readonly ReadChunk[] {
  let tokens = 0;
  const batch: ReadChunk[] = [];
  for (const chunk of chunks.slice(first, first + appendChunksMax)) {
    tokens += chunk.tokens;
    if (batch.length > 0 && tokens > tokensMax) break;
    batch.push(chunk);
  }
  return batch;
}

/** Changes when the same file is read or cut differently, by another version of this code. */
function digestOf(chunks: readonly ReadChunk[]): string {
  const hash = createHash('sha256');
  for (const { text } of chunks) hash.update(`${text.length}:`).update(text);
  return hash.digest('hex');
}

/** Refused for now, by a limit, a queue or a provider's: nothing is wrong with the file, and it is no attempt. */
export function mustWait(error: unknown): error is BulkheadError {
  return error instanceof BulkheadError && waitingCodes.has(error.code);
}

const waitingCodes = new Set<string>([
  'rate_limit_exceeded',
  'concurrency_limit_exceeded',
  'budget_reserved',
  'queue_full',
  'queue_timeout',
  'capacity_unavailable',
  'upstream_rate_limited',
  'metering_unavailable',
]);

/** Why a file cannot be indexed, or undefined when the same file may succeed later. OpenAI has three codes; ours begins the message. */
export function failureOf(error: unknown): IngestionFailure | undefined {
  if (!(error instanceof BulkheadError)) return undefined;
  switch (error.code) {
    case 'unsupported_file_type':
    case 'file_type_mismatch':
      return { code: 'unsupported_file', message: named(error) };
    case 'empty_file':
    case 'parse_failed':
    case 'archive_limit':
    case 'encrypted_document':
    case 'document_limit':
      return { code: 'invalid_file', message: named(error) };
    case 'embedding_failed':
    case 'upstream_rejected':
    case 'budget_exceeded':
    case 'request_too_large_for_limit':
    case 'model_not_found':
      return { code: 'server_error', message: named(error) };
    default:
      return undefined;
  }
}

function named(error: BulkheadError): string {
  return `${error.code}: ${error.message}`;
}
