/**
 * Port: the durable queue of background work. A job holds references only, never content, and no authority: who it works for is
 * proved by its signed envelope, which the queue carries and does not read.
 */
import type { Principal } from '../tenancy/principal.ts';
import type { StoreSpace } from './reembed.ts';

export type JobFacts = IngestFileJob | ExpireFileJob | ExpireStoreJob | ReembedStoreJob | ResealJob;

/** Every kind, for whoever must know them all at run time; a kind that is missing here does not compile. */
export const jobKinds: Readonly<Record<JobFacts['kind'], true>> = {
  ingest_file: true,
  expire_file: true,
  expire_store: true,
  reembed_store: true,
  reseal: true,
};

/** Index a file in a store. */
export interface IngestFileJob {
  readonly id: string;
  readonly kind: 'ingest_file';
  readonly payload: FileReference;
}

/** Delete a file whose time is up; ready at that time. */
export interface ExpireFileJob {
  readonly id: string;
  readonly kind: 'expire_file';
  readonly payload: { readonly fileId: string };
}

/** Empty a vector store whose time is up; ready at the earliest time that can be. */
export interface ExpireStoreJob {
  readonly id: string;
  readonly kind: 'expire_store';
  readonly payload: { readonly storeId: string };
}

/** Fill a space of a vector store, let searches read it, and remove what nobody reads any more; one slice at a time. */
export interface ReembedStoreJob {
  readonly id: string;
  readonly kind: 'reembed_store';
  readonly payload: StoreSpace;
}

/** Seal the tenant's content under its newest data key. */
export interface ResealJob {
  readonly id: string;
  readonly kind: 'reseal';
  readonly payload: Readonly<Record<string, never>>;
}

/** A file in a vector store. */
export interface FileReference {
  readonly storeId: string;
  readonly fileId: string;
}

/** Seals a job for the tenant that enqueues it. Called inside the transaction that inserts the job. */
export type SealJob = (principal: Principal, job: JobFacts) => string;

export type ClaimedJob = JobFacts & Claim;

export interface Claim {
  /** Whose turn it took; a label for fairness and logs, no authority. */
  readonly tenantLabel: string;
  readonly envelope: string;
  /** 1 for the first attempt. */
  readonly attempt: number;
  /** Proves that this claim still holds the lease. */
  readonly lease: string;
}

export interface JobQueue {
  /**
   * Takes the oldest ready job of the tenant that was served longest ago; undefined when none is ready. Jobs of a suspended tenant wait. The lease lasts `leaseMs`; a job
   * whose lease ran out is ready again.
   */
  claim(leaseMs: number): Promise<ClaimedJob | undefined>;
  /** Renews the lease; false when it was lost. */
  extend(job: ClaimedJob, leaseMs: number): Promise<boolean>;
  complete(job: ClaimedJob): Promise<void>;
  /** Ready again after `delayMs`. `countsAsAttempt: false` for work given back unharmed. */
  release(job: ClaimedJob, retry: { readonly delayMs: number; readonly countsAsAttempt: boolean }): Promise<void>;
  /** Sets the job aside for an operator; it is never claimed again. */
  bury(job: ClaimedJob, reason: string): Promise<void>;
  /** Makes every claimed job ready again. Only for the one process of an embedded database: then no other worker can hold a lease. */
  releaseAll(): Promise<void>;
}
