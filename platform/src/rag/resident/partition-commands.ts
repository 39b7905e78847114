/** What is said between a process and the thread that holds its partitions. A partition is a number that the process gave out, once. */
import type { AttributeFilter } from '../../tenancy/attributes.ts';
import type { ChunkPlace } from '../hybrid-ranking.ts';
import type { ChunkBatch, Publication } from './partition.ts';

export type PartitionCommand =
  | { readonly kind: 'open'; readonly partition: number; readonly dimensions: number }
  | { readonly kind: 'append'; readonly partition: number; readonly batch: ChunkBatch }
  | { readonly kind: 'publish'; readonly partition: number; readonly publication: Publication }
  | { readonly kind: 'release'; readonly partition: number }
  | NearestCommand
  | (Ranking & { readonly kind: 'matching'; readonly words: readonly string[] });

export type NearestCommand = Ranking & { readonly kind: 'nearest'; readonly question: Float32Array };

interface Ranking {
  readonly partition: number;
  /** A partition that is at another revision does not answer. */
  readonly revision: number;
  readonly filter: AttributeFilter | undefined;
}

export type PartitionAnswer =
  | { readonly kind: 'places'; readonly places: readonly ChunkPlace[] }
  /** There is no such partition, or it is at another revision. */
  | { readonly kind: 'stale' }
  | { readonly kind: 'held'; readonly bytes: number }
  /** The partition was released: there was no room for it. */
  | { readonly kind: 'full' };

export interface PartitionThreadData {
  readonly bytesMax: number;
}

export interface Request {
  readonly id: number;
  /** One, or several `nearest` of one partition at one revision, which one pass over its vectors answers. */
  readonly commands: readonly PartitionCommand[];
}

/** Answers in the order of the commands. */
export type Reply =
  | { readonly id: number; readonly answers: readonly PartitionAnswer[] }
  | { readonly id: number; readonly failure: string };
