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
  if (embeddings.length !== texts.length) {
    throw new BulkheadError('embedding_failed', `the embedding model answered ${embeddings.length} vectors for ${texts.length} texts`);
  }
  for (const embedding of embeddings) assertUsable(embedding, dimensions);
  return embeddings;
}

function assertUsable(embedding: Float32Array, dimensions: number): void {
  if (embedding.length !== dimensions) {
    throw new BulkheadError('embedding_failed', `the embedding model answered ${embedding.length} dimensions instead of ${dimensions}`);
  }
  if (!embedding.every(Number.isFinite))
    throw new BulkheadError('embedding_failed', 'the embedding model answered a vector that is not finite');
  if (!embedding.some((value) => value !== 0)) throw new BulkheadError('embedding_failed', 'the embedding model answered a zero vector');
}
