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

interface Finish {
  readonly user: string;
  /** Monotonic. */
  atMs: number;
}

/** Of a tenant: by the session's name, and by its user's and its own where another user of the tenant has one of that name. */
type Sessions = Map<string, Finish>;
type Finishes = Map<TenantId, Sessions>;

/**
 * Kept in two generations of ten seconds: the older is dropped whole, so nothing is looked for and nothing is moved. Alternatives: 1. one map in order of time (an entry
 * deleted and put back for each finish, which took a fifth of the queue's time), 2. always both names as one (making it took a twelfth).
 */
export class Interactions {
  /** The latest finish of each session. */
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
    const known = finishIn(sessions, user, session);
    if (known !== undefined) {
      known.atMs = nowMs;
      return;
    }
    sessions.set(sessions.has(session) ? nameOf(user, session) : session, { user, atMs: nowMs });
    dropFirst(sessions, sessionsPerTenantMax);
  }

  goesOn({ tenantId, user, session }: Ticket, nowMs: number): boolean {
    if (session === undefined) return false;
    const finish = finishIn(this.#current.get(tenantId), user, session) ?? finishIn(this.#previous.get(tenantId), user, session);
    return finish !== undefined && nowMs - finish.atMs < goesOnMs;
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

function finishIn(sessions: Sessions | undefined, user: string, session: string): Finish | undefined {
  const first = sessions?.get(session);
  if (first === undefined || first.user === user) return first;
  const own = sessions?.get(nameOf(user, session));
  return own?.user === user ? own : undefined;
}

/** Length-prefixed: no two pairs share a name. A session may be called so; its user tells them apart. */
function nameOf(user: string, session: string): string {
  return `${user.length}.${user}${session}`;
}

/** The first to come is the first to go. */
function dropFirst<Key>(map: Map<Key, unknown>, sizeMax: number): void {
  if (map.size <= sizeMax) return;
  const [first] = map.keys();
  if (first !== undefined) map.delete(first);
}
