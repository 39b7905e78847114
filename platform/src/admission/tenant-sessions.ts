/**
 * What is remembered of each session, bounded for a tenant and for all. Beyond a tenant's bound its own oldest goes; beyond that of all, the oldest of the tenant with
 * the most: a tenant that mints sessions forgets its own and nobody else's.
 */
import type { Clock } from '../primitives/clock.ts';
import type { TenantId } from '../primitives/ids.ts';

export interface SessionBounds {
  readonly ofTenantMax: number;
  readonly max: number;
  /** A session without a request for this long is over; its name begins another one. */
  readonly idleMs: number;
}

interface Kept<Session> {
  readonly session: Session;
  readonly atMs: number;
}

export class TenantSessions<Session> {
  readonly #clock: Clock;
  readonly #bounds: SessionBounds;
  /** Of each tenant, the one that was asked for longest ago first. */
  readonly #tenants = new Map<TenantId, Map<string, Kept<Session>>>();
  #count = 0;

  constructor(clock: Clock, bounds: SessionBounds) {
    this.#clock = clock;
    this.#bounds = bounds;
  }

  get count(): number {
    return this.#count;
  }

  /** The session of this name, or a new one. Asking keeps it. */
  obtain(tenantId: TenantId, name: string, open: (nowMs: number) => Session): Session {
    const nowMs = this.#clock.monotonicMs();
    const sessions = this.#tenants.get(tenantId) ?? new Map<string, Kept<Session>>();
    this.#tenants.set(tenantId, sessions);
    this.#forgetIdle(sessions, nowMs);
    const known = sessions.get(name)?.session;
    if (known === undefined) this.#makeRoom(sessions);
    else sessions.delete(name);
    const session = known ?? open(nowMs);
    sessions.set(name, { session, atMs: nowMs });
    if (known === undefined) this.#count++;
    return session;
  }

  #forgetIdle(sessions: Map<string, Kept<Session>>, nowMs: number): void {
    for (const [name, { atMs }] of sessions) {
      if (nowMs - atMs < this.#bounds.idleMs) return;
      this.#forget(sessions, name);
    }
  }

  #makeRoom(sessions: Map<string, Kept<Session>>): void {
    if (sessions.size >= this.#bounds.ofTenantMax) this.#forgetOldest(sessions);
    if (this.#count < this.#bounds.max) return;
    let largest = sessions;
    for (const [tenantId, each] of this.#tenants) {
      if (each.size > largest.size) largest = each;
      if (each.size === 0 && each !== sessions) this.#tenants.delete(tenantId);
    }
    // A hundredth at once: the next that come need not look at all tenants again.
    for (let gone = 0; gone <= this.#bounds.max / 100 && largest.size > 0; gone++) this.#forgetOldest(largest);
  }

  #forgetOldest(sessions: Map<string, Kept<Session>>): void {
    const [oldest] = sessions.keys();
    if (oldest !== undefined) this.#forget(sessions, oldest);
  }

  #forget(sessions: Map<string, Kept<Session>>, name: string): void {
    sessions.delete(name);
    this.#count--;
  }
}
