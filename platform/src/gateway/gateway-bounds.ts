/** Every limit of the HTTP edge by name. The first group is configuration; the rest has defaults that nobody had to change yet. */
import type { BoundsConfig } from '../config/schema.ts';

export type ConfiguredBounds = Pick<
  BoundsConfig,
  | 'bodyBytesMax'
  | 'uploadBytesMax'
  | 'uploadTimeoutMs'
  | 'spoolBytesMax'
  | 'bodyBytesInFlightMax'
  | 'headersTimeoutMs'
  | 'requestTimeoutMs'
  | 'streamDurationMaxMs'
  | 'streamBacklogBytesMax'
  | 'shutdownGraceMs'
>;

/** What surrounds the file of an upload: fields, part headers, boundaries. */
export const uploadOverheadBytes = 262_144;

/** What is in memory of an upload: a chunk from the socket, the same joined to what the last one left, all fields. */
export const uploadWindowBytes = 524_288;

export interface EdgeBounds {
  readonly headerBytesMax: number;
  readonly headersMax: number;
  readonly connectionsMax: number;
  /** Idle time of a kept-alive connection; longer than the 60 s that load balancers keep theirs, so that they close first. */
  readonly keepAliveMs: number;
  /** A comment on a silent stream. */
  readonly heartbeatMs: number;
  /** How long a streaming client's socket may stay full. */
  readonly streamStallMaxMs: number;
  /** How often streams and deadlines are looked at; one timer for all. */
  readonly sweepMs: number;
  /** After a refusal the rest of the body is read away for this long, so that the client reads the answer instead of a reset. */
  readonly lingerMs: number;
  readonly lingerBytesMax: number;
  /** An answer larger than this is not kept for a repeated Idempotency-Key. */
  readonly idempotentAnswerBytesMax: number;
}

export type GatewayBounds = ConfiguredBounds & EdgeBounds;

export const defaultEdgeBounds: EdgeBounds = {
  headerBytesMax: 16_384,
  headersMax: 100,
  connectionsMax: 20_000,
  keepAliveMs: 72_000,
  heartbeatMs: 15_000,
  streamStallMaxMs: 30_000,
  sweepMs: 1_000,
  lingerMs: 2_000,
  lingerBytesMax: 64 * 1_024 * 1_024,
  idempotentAnswerBytesMax: 1_048_576,
};
