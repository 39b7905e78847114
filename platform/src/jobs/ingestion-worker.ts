/**
 * Indexes attached files in the background: claim -> open the envelope -> ingest -> complete. Jobs survive a restart because a claim
 * is a lease; a worker that dies loses its lease and another begins the file anew. A job whose envelope does not open is buried.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { BulkheadError } from '../errors/bulkhead-error.ts';
import { failureOf, type IngestionParts, type IngestionShelf, ingestFile, mustWait } from '../rag/ingest.ts';
import type { Claim, ClaimedJob, IngestFileJob, JobQueue, ReembedStoreJob } from '../rag/job-queue.ts';
import { faultOf, type ReembeddingShelf, reembedSlice } from '../rag/reembed.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { FileCabinet, VectorStoreCabinet } from '../tenancy/capabilities.ts';
import type { Principal } from '../tenancy/principal.ts';
import type { JobEnvelopes } from './job-envelope.ts';

export interface IngestionWorkerParts extends IngestionParts {
  readonly queue: JobQueue;
  readonly envelopes: JobEnvelopes;
  /** Opens the tenant's stores for the identity that the envelope proved. */
  readonly shelfOf: (principal: Principal) => IngestionShelf;
  readonly filesOf: (principal: Principal) => Pick<FileCabinet, 'expire'>;
  readonly storesOf: (principal: Principal) => Pick<VectorStoreCabinet, 'expire'>;
  readonly reembeddingOf: (principal: Principal) => ReembeddingShelf;
  readonly resealerOf: (principal: Principal) => Resealer;
  /** No other process works on this queue (embedded database): what a dead one had claimed is ready again at the start. */
  readonly ownsQueue: boolean;
  readonly logger: Logger;
  readonly bounds?: Partial<IngestionBounds>;
}

/** Port: seals one tenant's content anew, a step at a time. */
export interface Resealer {
  /** Milliseconds until the next step; undefined when there is nothing more to do. */
  step(signal: AbortSignal): Promise<number | undefined>;
}

export interface IngestionBounds {
  /** Jobs at a time. */
  readonly concurrency: number;
  readonly leaseMs: number;
  /** How often an idle worker looks; `wake` makes it look at once. */
  readonly pollIntervalMs: number;
  readonly attemptsMax: number;
  /** Wait before the second attempt; doubles with each further one. */
  readonly retryDelayMs: number;
  /** Wait of a store that cannot be embedded anew just now; it serves as it is meanwhile. */
  readonly reembedRetryMs: number;
}

const boundsDefault: IngestionBounds = {
  concurrency: 2,
  leaseMs: 30_000,
  pollIntervalMs: 1_000,
  attemptsMax: 5,
  retryDelayMs: 2_000,
  reembedRetryMs: 60_000,
};

export class IngestionWorker implements AsyncDisposable {
  readonly #parts: IngestionWorkerParts;
  readonly #bounds: IngestionBounds;
  readonly #stopping = new AbortController();
  #recovered: Promise<void> | undefined;
  #wakeUp = new AbortController();
  #loops: readonly Promise<void>[] = [];

  constructor(parts: IngestionWorkerParts) {
    this.#parts = parts;
    this.#bounds = { ...boundsDefault, ...parts.bounds };
  }

  start(): void {
    if (this.#loops.length > 0 || this.#stopping.signal.aborted) return;
    this.#loops = Array.from({ length: this.#bounds.concurrency }, () => this.#loop());
  }

  /** A job was enqueued in this process: look now. */
  wake(): void {
    const sleeping = this.#wakeUp;
    this.#wakeUp = new AbortController();
    sleeping.abort();
  }

  /** Works until no job is ready; for tests and for the command line. Returns how many jobs were taken. */
  async drain(signal: AbortSignal = this.#stopping.signal): Promise<number> {
    for (let count = 0; ; count++) {
      if (signal.aborted || !(await this.#takeOne(signal))) return count;
    }
  }

  /** Stops taking jobs, aborts those under way and gives them back. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping.abort(new BulkheadError('shutting_down', 'the ingestion worker stops'));
    this.wake();
    await Promise.all(this.#loops);
  }

  async #loop(): Promise<void> {
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      const { signal: woken } = this.#wakeUp;
      try {
        this.#recovered ??= this.#parts.ownsQueue ? this.#parts.queue.releaseAll() : Promise.resolve();
        await this.#recovered;
        if (await this.#takeOne(signal)) continue;
      } catch (error) {
        this.#parts.logger.error({ component: 'ingestion', stack: stackOf(error) }, 'the job queue could not be read');
      }
      await sleep(this.#bounds.pollIntervalMs, undefined, { signal: woken, ref: false }).catch(() => {});
    }
  }

  async #takeOne(signal: AbortSignal): Promise<boolean> {
    const job = await this.#parts.queue.claim(this.#bounds.leaseMs);
    if (job === undefined) return false;
    const principal = this.#parts.envelopes.open(job.envelope, job);
    if (principal === undefined) {
      this.#parts.logger.error(
        { component: 'ingestion', jobId: job.id, code: 'forged_envelope' },
        'a job without a valid envelope was set aside',
      );
      await this.#parts.queue.bury(job, 'its envelope does not open');
      return true;
    }
    await using lease = new HeldLease(this.#parts.queue, job, { leaseMs: this.#bounds.leaseMs, signal });
    await this.#work(job, principal, lease.signal);
    return true;
  }

  async #work(job: ClaimedJob, principal: Principal, signal: AbortSignal): Promise<void> {
    const { queue, shelfOf } = this.#parts;
    try {
      const againInMs = await this.#perform(job, principal, signal);
      if (againInMs === undefined) await queue.complete(job);
      else await queue.release(job, { delayMs: againInMs, countsAsAttempt: false });
    } catch (error) {
      await this.#settleFailure({ job, shelf: shelfOf(principal), signal }, error);
    }
  }

  /** Milliseconds after which the job has to be looked at again; undefined when it is done. */
  async #perform(job: ClaimedJob, principal: Principal, signal: AbortSignal): Promise<number | undefined> {
    switch (job.kind) {
      case 'ingest_file':
        await this.#ingest(job, principal, signal);
        return undefined;
      case 'expire_file':
        return this.#parts.filesOf(principal).expire(job.payload.fileId);
      case 'expire_store':
        return this.#parts.storesOf(principal).expire(job.payload.storeId);
      case 'reembed_store':
        return this.#reembed(job, principal, signal);
      case 'reseal':
        return this.#parts.resealerOf(principal).step(signal);
      default:
        return job satisfies never;
    }
  }

  async #ingest(job: IngestFileJob & Claim, principal: Principal, signal: AbortSignal): Promise<void> {
    // A document that kills the process never reports a failure; its attempts are counted when they begin.
    if (job.attempt > this.#bounds.attemptsMax) throw new BulkheadError('parse_failed', 'reading the file ended the process each time');
    const draft = await this.#parts.shelfOf(principal).begin(job.payload);
    if (draft !== undefined) await ingestFile(this.#parts, principal, { draft, signal });
  }

  /** A store that cannot be embedded anew stays as it is and is tried again, however often: its model may come back, its budget begin anew. */
  async #reembed(job: ReembedStoreJob & Claim, principal: Principal, signal: AbortSignal): Promise<number | undefined> {
    const shelf = this.#parts.reembeddingOf(principal);
    const space = job.payload;
    try {
      return (await reembedSlice(this.#parts, principal, { shelf, space, signal })) === 'more' ? 0 : undefined;
    } catch (error) {
      if (signal.aborted || mustWait(error) || (error instanceof BulkheadError && error.code === 'tenant_suspended')) throw error;
      this.#parts.logger.warn(
        { component: 'reembedding', jobId: job.id, tenantId: job.tenantLabel, ...factsOf(error) },
        'a vector store could not be embedded anew and serves as it is',
      );
      await shelf.markFault(space, faultOf(error));
      return this.#bounds.reembedRetryMs;
    }
  }

  async #settleFailure(failed: { readonly job: ClaimedJob; readonly shelf: IngestionShelf; readonly signal: AbortSignal }, error: unknown) {
    const { queue, logger } = this.#parts;
    const { job, shelf } = failed;
    // A suspended tenant's work waits: the queue gives it to nobody until the tenant is resumed.
    const isSuspended = error instanceof BulkheadError && error.code === 'tenant_suspended';
    if (failed.signal.aborted || isSuspended) {
      await queue.release(job, { delayMs: 0, countsAsAttempt: false });
      return;
    }
    if (mustWait(error)) {
      await queue.release(job, { delayMs: error.retryAfterMs ?? this.#bounds.retryDelayMs, countsAsAttempt: false });
      return;
    }
    const failure = failureOf(error);
    const { attemptsMax, retryDelayMs } = this.#bounds;
    logger.warn(
      { component: 'ingestion', jobId: job.id, tenantId: job.tenantLabel, count: job.attempt, ...factsOf(error) },
      job.kind === 'ingest_file' ? 'a file was not indexed' : 'a job failed',
    );
    if (failure === undefined && job.attempt < attemptsMax) {
      await queue.release(job, { delayMs: retryDelayMs * 2 ** (job.attempt - 1), countsAsAttempt: true });
      return;
    }
    if (job.kind !== 'ingest_file') {
      await queue.bury(job, `it failed in ${job.attempt} attempts`);
      return;
    }
    await shelf.fail(job.payload, failure ?? { code: 'server_error', message: `the file could not be indexed in ${job.attempt} attempts` });
    await queue.complete(job);
  }
}

/** Renews a lease while it is held; `signal` aborts when it is lost or the worker stops. */
class HeldLease implements AsyncDisposable {
  readonly #ended = new AbortController();
  readonly #lost = new AbortController();
  readonly #beating: Promise<void>;
  readonly signal: AbortSignal;

  constructor(queue: JobQueue, job: ClaimedJob, { leaseMs, signal }: { readonly leaseMs: number; readonly signal: AbortSignal }) {
    this.signal = AbortSignal.any([signal, this.#lost.signal]);
    this.#beating = this.#beat(queue, job, leaseMs);
  }

  async #beat(queue: JobQueue, job: ClaimedJob, leaseMs: number): Promise<void> {
    for (;;) {
      await sleep(leaseMs / 3, undefined, { signal: this.#ended.signal, ref: false }).catch(() => {});
      if (this.#ended.signal.aborted) return;
      const isHeld = await queue.extend(job, leaseMs).catch(() => true);
      if (!isHeld) {
        this.#lost.abort(new BulkheadError('shutting_down', 'another worker took the job over'));
        return;
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ended.abort();
    await this.#beating;
  }
}

function factsOf(error: unknown): { readonly code?: string; readonly stack?: string | undefined } {
  return error instanceof BulkheadError ? { code: error.code } : { stack: stackOf(error) };
}

/** Without the message: a database's or provider's may quote content. */
function stackOf(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined;
  const lines = error.stack?.split('\n').filter((line) => line.trimStart().startsWith('at '));
  return [error.name, ...(lines ?? [])].join('\n');
}
