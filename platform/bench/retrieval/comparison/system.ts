/** What is compared: each runs in a process of its own, so that memory is its own. */
import type { BenchTenant, Question, Workload } from './workload.ts';

export interface SearchSystem extends AsyncDisposable {
  /** False: its vectors are not the workload's; absent: they are. */
  readonly hasRecall?: boolean;
  load(workload: Workload): Promise<void>;
  /** Numbers of the tenant's vectors, nearest first. */
  search(question: Question, limit: number): Promise<readonly number[]>;
  /** Vectors and words; only where there is such a thing. */
  readonly hybrid?: (question: Question, limit: number) => Promise<readonly number[]>;
  /** Before the first search of a tenant is timed. */
  readonly forget?: (tenant: BenchTenant) => Promise<void>;
  /** Waits for what earlier searches began in the background. */
  readonly settled?: () => Promise<void>;
  /** What the system says its vectors and words hold in memory. */
  readonly heldMiB?: () => number;
  /** Memory of the database's own processes in MiB, where it has some; that of this process is measured by the caller. */
  readonly serverMiB?: () => Promise<number>;
  /** Bytes on disk, where the system says so. */
  readonly diskMiB?: () => Promise<number>;
}

export interface SystemOptions {
  readonly system: SystemName;
  readonly tenants: number;
  readonly vectors: number;
  readonly dimensions: number;
  readonly seed: number;
  readonly wordsPerChunk: number;
  readonly questionsPerClass: number;
  readonly secondsPerRound: number;
  readonly concurrency: number;
  /** Of the real server, for those that need one. */
  readonly serverUrl?: string | undefined;
}

export const systemNames = [
  'bulkhead-embedded',
  'bulkhead-server',
  'bulkhead-http',
  'pgvector-exact',
  'pgvector-hnsw',
  'pgvector-hnsw-iterative',
  'lancedb',
] as const;
export type SystemName = (typeof systemNames)[number];

export interface Latency {
  readonly p50: number;
  readonly p99: number;
}

export interface ClassResult {
  readonly sizeClass: string;
  readonly tenants: number;
  readonly questions: number;
  /** Undefined where it cannot be measured. */
  readonly recall: number | undefined;
  readonly short: number;
  readonly p50: number;
  readonly p99: number;
  readonly hybrid?: Latency | undefined;
}

export interface SystemResult {
  readonly system: SystemName;
  readonly dimensions: number;
  readonly loadSeconds: number;
  readonly classes: readonly ClassResult[];
  /** Of the tenants up to 10,000 vectors, asked by Zipf's law, warm. */
  readonly upTo10k: { readonly vector: Latency; readonly hybrid: Latency | undefined };
  /** First searches after loading, of the largest tenants up to 10,000 vectors: the slowest. */
  readonly coldMs: number | undefined;
  readonly perSecondAlone: number;
  readonly perSecondTogether: number;
  readonly memory: Memory;
}

export interface Memory {
  readonly afterLoadMiB: number;
  /** When every tenant that was asked is warm. */
  readonly warmMiB: number;
  readonly serverMiB: number | undefined;
  readonly diskMiB: number | undefined;
  /** What the system itself says it holds. */
  readonly heldMiB: number | undefined;
  /** Vectors of the tenants that were asked. */
  readonly rawMiB: number;
}
