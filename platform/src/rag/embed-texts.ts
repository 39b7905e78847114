import { BulkheadError } from '../errors/bulkhead-error.ts';

/** Port: texts to vectors, `[texts.length][dimension]`, in order. Composition binds it to a model and to the tenant that pays. */
export interface Embedder {
  readonly embed: (texts: readonly string[], signal: AbortSignal) => Promise<readonly Float32Array[]>;
  /** Tokens that the limits of the tenant let one call have; a single longer text is a call of its own. Absent: any number. */
  readonly callTokensMax?: number | undefined;
}

/** Throws `embedding_failed` unless there is one finite, non-zero vector of the right dimension for each text. */
export async function embedTexts(
  embedder: Embedder,
  texts: readonly string[],
  { dimensions, signal }: { readonly dimensions: number; readonly signal: AbortSignal },
): Promise<readonly Float32Array[]> {
  const embeddings = await embedder.embed(texts, signal);
  assertEmbedded(embeddings, texts.length);
  for (const embedding of embeddings) assertDimensions(embedding, dimensions);
  return embeddings;
}

/** Throws `embedding_failed` unless there is one finite, non-zero vector for each text. */
export function assertEmbedded(embeddings: readonly Float32Array[], texts: number): void {
  if (embeddings.length !== texts) {
    throw new BulkheadError('embedding_failed', `the embedding model answered ${embeddings.length} vectors for ${texts} texts`);
  }
  for (const embedding of embeddings) assertUsable(embedding);
}

/** Throws `embedding_failed`: the model is not what it is configured as. */
export function assertDimensions(embedding: Float32Array, dimensions: number): void {
  if (embedding.length === dimensions) return;
  throw new BulkheadError('embedding_failed', `the embedding model answered ${embedding.length} dimensions instead of ${dimensions}`);
}

function assertUsable(embedding: Float32Array): void {
  if (!embedding.every(Number.isFinite))
    throw new BulkheadError('embedding_failed', 'the embedding model answered a vector that is not finite');
  if (!embedding.some((value) => value !== 0)) throw new BulkheadError('embedding_failed', 'the embedding model answered a zero vector');
}
