import { assertEmbedded } from '../rag/embed-texts.ts';
import type { InferenceCall } from './inference-call.ts';
import { type InferenceParts, serveEmbedding } from './serve-inference.ts';

export interface Asked extends Omit<InferenceCall, 'body'> {
  readonly queries: readonly string[];
}

/** The questions of one search, embedded once by each model that is needed, at the expense of the tenant who asks. */
export class QuestionEmbeddings {
  readonly #parts: InferenceParts;
  readonly #asked: Asked;
  readonly #byModel = new Map<string, Promise<readonly Float32Array[]>>();

  constructor(parts: InferenceParts, asked: Asked) {
    this.#parts = parts;
    this.#asked = asked;
  }

  /** In the order of the questions. Throws `embedding_failed` and what the provider throws. */
  by(model: string): Promise<readonly Float32Array[]> {
    const known = this.#byModel.get(model);
    if (known !== undefined) return known;
    const embedding = this.#embed(model);
    this.#byModel.set(model, embedding);
    return embedding;
  }

  async #embed(model: string): Promise<readonly Float32Array[]> {
    const { scope, requestId, sessionId, signal, endpoint, queries } = this.#asked;
    const body = { model, input: queries, encoding_format: 'float' };
    const served = await serveEmbedding(this.#parts, { scope, requestId, sessionId, signal, endpoint, body });
    const items = served.parsed['data'] as readonly { readonly embedding: readonly number[] }[];
    const embeddings = items.map((item) => Float32Array.from(item.embedding));
    assertEmbedded(embeddings, queries.length);
    return embeddings;
  }
}
