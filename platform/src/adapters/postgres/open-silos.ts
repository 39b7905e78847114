/** Silos that are open now: opened on demand, shared while in use, closed when idle or when another needs the room. */
import { setTimeout as wait } from 'node:timers/promises';
import { BulkheadError } from '../../errors/bulkhead-error.ts';
import type { Clock } from '../../primitives/clock.ts';
import type { Logger } from '../../telemetry/logger.ts';
import type { Database } from './database.ts';
import { type OpenSilo, SiloGone, type SiloSource } from './silo-source.ts';

export interface OpenSiloBounds {
  readonly openMax: number;
  readonly idleMs: number;
  /** How long a caller waits for room while every open silo is in use. */
  readonly roomWaitMaxMs: number;
}

interface Entry {
  readonly place: string;
  readonly opening: Promise<OpenSilo>;
  users: number;
  idleSinceMs: number;
}

const lookEveryMs = 20;

export class OpenSilos implements AsyncDisposable {
  readonly #source: SiloSource;
  readonly #bounds: OpenSiloBounds;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #entries = new Map<string, Entry>();
  /** Places that are being closed: their files must not be opened before that is done. */
  readonly #closing = new Map<string, Promise<void>>();
  /** Places whose files are about to go, or have gone. */
  readonly #retired = new Set<string>();
  readonly #sweeper: NodeJS.Timeout;
  #isClosed = false;

  constructor(source: SiloSource, parts: { readonly bounds: OpenSiloBounds; readonly clock: Clock; readonly logger: Logger }) {
    this.#source = source;
    this.#bounds = parts.bounds;
    this.#clock = parts.clock;
    this.#logger = parts.logger;
    this.#sweeper = setInterval(() => this.#closeIdle(), Math.max(20, parts.bounds.idleMs / 4)).unref();
  }

  get size(): number {
    return this.#entries.size;
  }

  /** Runs `work` with the silo open. Throws `capacity_unavailable` when no room comes free in time, `SiloGone` when it was retired. */
  async use<T>(place: string, work: (database: Database) => Promise<T>): Promise<T> {
    const entry = await this.#enter(place);
    try {
      return await work((await entry.opening).database);
    } finally {
      entry.users--;
      entry.idleSinceMs = this.#clock.monotonicMs();
    }
  }

  /** Looks at every silo that is open now, one after the other. A look keeps none from closing; one that cannot be opened is left to its users. */
  async visit(work: (database: Database, place: string) => Promise<void>): Promise<void> {
    for (const entry of this.#entries.values()) {
      entry.users++;
      try {
        const silo = await entry.opening.catch(() => undefined);
        if (silo !== undefined) await work(silo.database, entry.place);
      } finally {
        entry.users--;
      }
    }
  }

  /** Lets nobody in any more, waits for its users and closes it. */
  async retire(place: string): Promise<void> {
    this.#retired.add(place);
    const entry = this.#entries.get(place);
    if (entry !== undefined) {
      while (entry.users > 0) await wait(lookEveryMs);
      if (this.#entries.get(place) === entry) this.#release(entry);
    }
    await this.#closing.get(place);
  }

  /** A place that was made anew. */
  admit(place: string): void {
    this.#retired.delete(place);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    clearInterval(this.#sweeper);
    for (const entry of this.#entries.values()) this.#release(entry);
    await Promise.all(this.#closing.values());
  }

  async #enter(place: string): Promise<Entry> {
    const untilMs = this.#clock.monotonicMs() + this.#bounds.roomWaitMaxMs;
    for (;;) {
      if (this.#isClosed) throw new BulkheadError('shutting_down', 'the server is shutting down', { retryAfterMs: 1_000 });
      if (this.#retired.has(place)) throw new SiloGone('the tenant has left this database');
      const closing = this.#closing.get(place);
      if (closing !== undefined) await closing;
      const open = this.#entries.get(place) ?? (closing === undefined ? this.#begin(place) : undefined);
      if (open !== undefined) {
        open.users++;
        return open;
      }
      if (closing !== undefined) continue;
      if (this.#clock.monotonicMs() >= untilMs) {
        throw new BulkheadError('capacity_unavailable', 'Too many tenant databases are in use; try again.', { retryAfterMs: 1_000 });
      }
      await wait(lookEveryMs);
    }
  }

  /** Undefined when there is no room. */
  #begin(place: string): Entry | undefined {
    if (this.#entries.size + this.#closing.size >= this.#bounds.openMax) {
      const idle = [...this.#entries.values()].filter((entry) => entry.users === 0);
      const longest = idle.toSorted((left, right) => left.idleSinceMs - right.idleSinceMs)[0];
      if (longest !== undefined) this.#release(longest);
      return undefined;
    }
    const opening = this.#source.open(place);
    const entry: Entry = { place, opening, users: 0, idleSinceMs: this.#clock.monotonicMs() };
    this.#entries.set(place, entry);
    // One that could not be opened is tried again by the next caller.
    opening.catch(() => {
      if (this.#entries.get(place) === entry) this.#entries.delete(place);
    });
    return entry;
  }

  #closeIdle(): void {
    const beforeMs = this.#clock.monotonicMs() - this.#bounds.idleMs;
    for (const entry of this.#entries.values()) if (entry.users === 0 && entry.idleSinceMs <= beforeMs) this.#release(entry);
  }

  #release(entry: Entry): void {
    this.#entries.delete(entry.place);
    const closed = entry.opening
      .then((silo) => silo[Symbol.asyncDispose]())
      .catch(() => this.#logger.warn({ component: 'silos' }, 'a tenant database did not close in order'))
      .finally(() => this.#closing.delete(entry.place));
    this.#closing.set(entry.place, closed);
  }
}
