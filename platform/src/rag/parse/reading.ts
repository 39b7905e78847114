/** The messages between `DocumentReader` and its worker: structured clones, so classes and stacks do not cross. */
import type { ErrorCode } from '../../errors/catalogue.ts';
import type { ChunkingStrategy } from '../../tenancy/capabilities.ts';
import type { DocumentFormat } from './document.ts';

export interface ReadingTask {
  readonly filename: string;
  readonly bytes: Uint8Array;
  readonly chunking: ChunkingStrategy;
  readonly chunksMax: number;
}

export interface ReadDocument {
  readonly format: DocumentFormat;
  /** Chunks of the document in reading order. */
  readonly chunks: readonly ReadChunk[];
}

export interface ReadChunk {
  readonly text: string;
  readonly tokens: number;
}

export type ReadingResult =
  /** Said once, when the parsers are loaded. */
  | { readonly kind: 'ready' }
  | { readonly kind: 'read'; readonly document: ReadDocument }
  | { readonly kind: 'refused'; readonly code: ErrorCode; readonly message: string };
