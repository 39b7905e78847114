/**
 * Which sessions are in the middle of an interaction: a call of theirs finished less than ten seconds ago, in any pool. An agent's run consists of such calls, and
 * to refuse the seventh wastes the first six.
 */
import type { TenantId } from '../primitives/ids.ts';
import type { Ticket } from './fair-queue.ts';

export const goesOnMs = 10_000;
/** Of one tenant in one generation. */
export const sessionsPerTenantMax = 2_000;
const tenantsMax = 10_000;

type Finishes = Map<TenantId, Map<string, number>>;

/**
 * Kept in two generations of ten seconds: the older is dropped whole, so nothing is looked for and nothing is moved. Alternative: one map in order of time (an entry
 * deleted and put back for each finish, which took a fifth of the queue's time).
 */
export class Interactions {
  /** Monotonic times of the latest finish, by session. */
  #current: Finishes = new Map();
  #previous: Finishes = new Map();
  #beganAtMs = 0;

  /** A call of the session has delivered something. `nowMs` is monotonic. */
  finished({ tenantId, user, session }: Ticket, nowMs: number): void {
    if (session === undefined) return;
    this.#turn(nowMs);
    let sessions = this.#current.get(tenantId);
    if (sessions === undefined) {
      sessions = new Map();
      this.#current.set(tenantId, sessions);
      dropFirst(this.#current, tenantsMax);
    }
    sessions.set(nameOf(user, session), nowMs);
    dropFirst(sessions, sessionsPerTenantMax);
  }

  goesOn({ tenantId, user, session }: Ticket, nowMs: number): boolean {
    if (session === undefined) return false;
    const name = nameOf(user, session);
    const finishedAtMs = this.#current.get(tenantId)?.get(name) ?? this.#previous.get(tenantId)?.get(name);
    return finishedAtMs !== undefined && nowMs - finishedAtMs < goesOnMs;
  }

  get sessionCount(): number {
    return [this.#current, this.#previous].flatMap((finishes) => [...finishes.values()]).reduce((sum, { size }) => sum + size, 0);
  }

  #turn(nowMs: number): void {
    if (nowMs - this.#beganAtMs < goesOnMs) return;
    this.#previous = this.#current;
    this.#current = new Map();
    this.#beganAtMs = nowMs;
  }
}

/** Length-prefixed: no two pairs share a name. */
function nameOf(user: string, session: string): string {
  return `${user.length}.${user}${session}`;
}

/** The first to come is the first to go. */
function dropFirst<Key>(map: Map<Key, unknown>, sizeMax: number): void {
  if (map.size <= sizeMax) return;
  const [first] = map.keys();
  if (first !== undefined) map.delete(first);
}
