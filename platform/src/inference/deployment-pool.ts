/** The deployments that can stand in for each other, and how many calls they take together: what the fair queue shares out. */
import { setTimeout } from 'node:timers';
import type { Clock } from '../primitives/clock.ts';
import type { Deployment } from './deployment.ts';

export interface PoolCapacity {
  readonly poolId: string;
  /** Calls its deployments take at once, now. */
  readonly permits: number;
  /** Calls their accounts take, from all replicas together. */
  readonly accountPermits: number;
  /** Until they take more again; there when they take none, and time will change it. */
  readonly resumesInMs: number | undefined;
}

/** Rounding of timers must not make one ring before what it waits for. */
const timerSlackMs = 1;
const timerMaxMs = 60_000;

export class DeploymentPool {
  readonly poolId: string;
  readonly deployments: readonly Deployment[];
  readonly #clock: Clock;
  readonly #waiting = new Set<() => void>();
  #listener: ((capacity: PoolCapacity) => void) | undefined;
  #published: { readonly permits: number; readonly accountPermits: number } | undefined;
  #timer: NodeJS.Timeout | undefined;
  #timerAtMs = 0;

  constructor(poolId: string, deployments: readonly Deployment[], clock: Clock) {
    this.poolId = poolId;
    this.deployments = deployments;
    this.#clock = clock;
    for (const deployment of deployments) deployment.onChange = () => this.refresh();
  }

  get permits(): number {
    let permits = 0;
    for (const deployment of this.deployments) permits += deployment.permits;
    return permits;
  }

  get accountPermits(): number {
    let permits = 0;
    for (const deployment of this.deployments) permits += deployment.accountPermits;
    return permits;
  }

  capacity(): PoolCapacity {
    const { poolId, permits, accountPermits } = this;
    const atMs = permits === 0 ? resumesAtMs(this.deployments) : undefined;
    const resumesInMs = atMs === undefined ? undefined : Math.max(0, Math.ceil(atMs - this.#clock.monotonicMs()));
    return { poolId, permits, accountPermits, resumesInMs };
  }

  /** Told the capacity now and whenever it changes. */
  watch(listener: (capacity: PoolCapacity) => void): void {
    this.#listener = listener;
    this.#published = undefined;
    this.refresh();
  }

  /** Public for clocks that are moved by hand; else calls and a timer do it. */
  refresh(): void {
    const { permits, accountPermits } = this;
    if (permits !== this.#published?.permits || accountPermits !== this.#published.accountPermits) {
      this.#published = { permits, accountPermits };
      this.#listener?.(this.capacity());
    }
    if (this.#waiting.size > 0) for (const wake of this.#waiting) wake();
    this.#armTimer();
  }

  /** Waits until something changes, `ms` have passed, or the signal says so: then it throws the signal's reason. In order of arrival. */
  change(ms: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const end = () => {
        this.#waiting.delete(wake);
        clearTimeout(timer);
        signal.removeEventListener('abort', abort);
      };
      const wake = () => {
        end();
        resolve();
      };
      const abort = () => {
        end();
        reject(signal.reason as Error);
      };
      const timer = setTimeout(wake, Math.min(timerMaxMs, Math.max(0, ms) + timerSlackMs));
      this.#waiting.add(wake);
      if (signal.aborted) abort();
      else signal.addEventListener('abort', abort);
    });
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#listener = undefined;
    for (const deployment of this.deployments) deployment.onChange = () => {};
    for (const wake of this.#waiting) wake();
  }

  #armTimer(): void {
    let atMs = Number.POSITIVE_INFINITY;
    for (const { changesAtMs } of this.deployments) if (changesAtMs !== undefined) atMs = Math.min(atMs, changesAtMs);
    if (atMs === Number.POSITIVE_INFINITY || (this.#timer !== undefined && this.#timerAtMs <= atMs)) return;
    clearTimeout(this.#timer);
    this.#timerAtMs = atMs;
    const delayMs = Math.min(timerMaxMs, Math.max(0, atMs - this.#clock.monotonicMs()) + timerSlackMs);
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.refresh();
    }, delayMs);
    this.#timer.unref();
  }
}

/** When the first of those that take nothing now does again; undefined: time alone will not help. */
export function resumesAtMs(deployments: readonly Deployment[]): number | undefined {
  let firstMs: number | undefined;
  for (const { changesAtMs } of deployments) {
    if (changesAtMs !== undefined && (firstMs === undefined || changesAtMs < firstMs)) firstMs = changesAtMs;
  }
  return firstMs;
}
