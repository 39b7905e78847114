/**
 * A vector store is embedded anew: by another model, in the background, while searches read what is there.
 *
 * Before: the configured model is not the store's, and a space to fill was begun with a job. After: the store's searches read the new space, in one
 * transaction, and the old one is gone. Each slice is bounded, asks the store what is left to do, and can be repeated: a process that dies anywhere is
 * followed by one that goes on. Files that are indexed meanwhile are found by the same question, so the switch waits for them; an attempt to index
 * that began before the switch and ends after it is refused and begins anew.
 */
import { BulkheadError } from '../errors/bulkhead-error.ts';
import type { Principal } from '../tenancy/principal.ts';
import { type Embedder, embedTexts } from './embed-texts.ts';

export interface EmbeddingSetting {
  readonly model: string;
  readonly dimensions: number;
}

/** One model's vectors of one store. Numbers are not used again. */
export interface StoreSpace {
  readonly storeId: string;
  readonly spaceNo: number;
}

/** Chunks of one slice, which is one call of the embedding model. */
export const sliceChunksMax = 64;

/** Port: the part of a tenant's stores that re-embedding works on. */
export interface ReembeddingShelf {
  /** Begins a space for every store that is not embedded by `target`, and gives up those for other models; each gets its job in the same transaction. */
  begin(target: EmbeddingSetting): Promise<void>;
  /** How the tenant's stores are embedded. */
  survey(): Promise<readonly EmbeddedStores[]>;
  /** What is left to do, in the order of the steps; at most `sliceChunksMax` chunks. */
  next(space: StoreSpace): Promise<ReembeddingStep>;
  /** Writes vectors of chunks that are still there. Writing one again changes nothing. False: the space is not being filled any more. */
  append(space: StoreSpace, vectors: readonly ChunkVector[]): Promise<boolean>;
  /** Searches read this space from now on. False, and nothing done, when a visible chunk has no vector in it or it is not being filled. */
  activate(space: StoreSpace): Promise<boolean>;
  /** Deletes some hundred vectors of spaces that nobody reads. */
  clear(space: StoreSpace): Promise<void>;
  /** Writes down why the space is not being filled just now, for operators. */
  markFault(space: StoreSpace, code: string): Promise<void>;
}

/** Stores of one tenant that are alike. */
export interface EmbeddedStores extends EmbeddingSetting {
  readonly stores: number;
  /** What they are being embedded by; undefined when nothing is under way. */
  readonly building?: EmbeddingSetting | undefined;
  readonly fault?: string | undefined;
}

export type ReembeddingStep =
  | { readonly kind: 'embed'; readonly setting: EmbeddingSetting; readonly chunks: readonly SpaceChunk[] }
  | { readonly kind: 'activate' }
  | { readonly kind: 'clear' }
  | { readonly kind: 'done' };

export interface SpaceChunk {
  readonly fileNo: number;
  /** Position in the file, from 0. */
  readonly ordinal: number;
  readonly text: string;
}

export interface ChunkVector extends Omit<SpaceChunk, 'text'> {
  readonly embedding: Float32Array;
}

export interface ReembeddingParts {
  readonly embedderFor: (embeddingModel: string, principal: Principal) => Embedder | Promise<Embedder>;
}

export interface ReembeddingWork {
  readonly shelf: ReembeddingShelf;
  readonly space: StoreSpace;
  readonly signal: AbortSignal;
}

/** Does one step. Throws `embedding_failed`, what the embedder throws, or the signal's reason; then the store serves as it did. */
export async function reembedSlice(parts: ReembeddingParts, principal: Principal, work: ReembeddingWork): Promise<'more' | 'done'> {
  const { shelf, space, signal } = work;
  signal.throwIfAborted();
  const step = await shelf.next(space);
  switch (step.kind) {
    case 'embed': {
      const { model, dimensions } = step.setting;
      const embedder = await parts.embedderFor(model, principal);
      const chunks = callOf(step.chunks, embedder.callTokensMax ?? Number.POSITIVE_INFINITY);
      const texts = chunks.map((chunk) => chunk.text);
      const embeddings = await embedTexts(embedder, texts, { dimensions, signal });
      await shelf.append(
        space,
        chunks.map(({ fileNo, ordinal }, index) => ({ fileNo, ordinal, embedding: embeddings[index] as Float32Array })),
      );
      return 'more';
    }
    case 'activate':
      await shelf.activate(space);
      return 'more';
    case 'clear':
      await shelf.clear(space);
      return 'more';
    case 'done':
      return 'done';
    default:
      return step satisfies never;
  }
}

/** The first chunks that one call may embed: at least one. A token is taken for four bytes, as admission does. */
function callOf(chunks: readonly SpaceChunk[], tokensMax: number): readonly SpaceChunk[] {
  let tokens = 0;
  const end = chunks.findIndex(({ text }, index) => {
    tokens += Math.ceil(Buffer.byteLength(text) / 4);
    return index > 0 && tokens > tokensMax;
  });
  return end < 0 ? chunks : chunks.slice(0, end);
}

/** What an operator is told. */
export function faultOf(error: unknown): string {
  return error instanceof BulkheadError ? error.code : 'internal_error';
}
