/**
 * What one session may do as a whole: a run of an agent that does not end, or goes round in circles, costs money and the patience of everybody in its queue.
 * Sessions are kept in this process, by their last request.
 *
 * A circle is seen in what the agent did last: the tools it called with their arguments, and what it said. The same four times in a row, or a
 * cycle of two or three that came round three times, is warned of; two steps later it is refused.
 */
import { createHash } from 'node:crypto';
import { BulkheadError } from '../errors/bulkhead-error.ts';
import type { Clock } from '../primitives/clock.ts';
import type { SessionPolicy } from '../tenancy/tenant.ts';
import type { TenantScope } from '../tenancy/tenant-scope.ts';
import type { Caller } from './limit-scopes.ts';
import { TenantSessions } from './tenant-sessions.ts';

type Body = Readonly<Record<string, unknown>>;

export interface SessionCall {
  /** The session goes round in circles and is refused if it goes on. */
  readonly isLooping: boolean;
  /** Limits or the queue refused it: it is no call of the session. Once. */
  refused(): void;
}

interface Session {
  readonly startedAtMs: number;
  calls: number;
  /** What was done last, newest first. */
  steps: readonly string[];
  /** The latest request that made a step. */
  request: string;
  warnings: number;
}

interface Step {
  readonly digest: string;
  /** Two requests with the same are one, sent again. */
  readonly request: string;
}

const bounds = { ofTenantMax: 2_000, max: 20_000, idleMs: 3_600_000 };
const stepsMax = 16;
const repeatsMin = 4;
const cyclesMin = 3;
const warningsMax = 2;
/** Newest messages by which a request is known again. */
const requestMessages = 4;
const depthMax = 64;

export class SessionGuard {
  readonly #clock: Clock;
  readonly #sessions: TenantSessions<Session>;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#sessions = new TenantSessions(clock, bounds);
  }

  /**
   * Counts a call before limits and the queue are asked, so that no more begin at once than may be made, and not if they refuse it. Throws
   * `session_limit_exceeded` or `agent_loop_detected`, and counts nothing then.
   */
  enter({ tenantId, policy }: TenantScope, { user, session: name }: Caller, body: Body): SessionCall {
    if (name === undefined) return { isLooping: false, refused: () => {} };
    const session = this.#sessions.obtain(tenantId, `${user.length}.${user}:${name}`, openSession);
    this.#bound(session, policy.perSession ?? {});
    const isLooping = this.#isLooping(session, body);
    session.calls++;
    return {
      isLooping,
      refused: () => {
        session.calls--;
      },
    };
  }

  #isLooping(session: Session, body: Body): boolean {
    const step = stepOf(body);
    if (step === undefined) return false;
    // The same request again is a retry: no step, and no reason to be stricter.
    const isRetry = step.request === session.request;
    if (!isRetry) session.steps = [step.digest, ...session.steps].slice(0, stepsMax);
    session.request = step.request;
    const period = periodOf(session.steps);
    if (period === undefined) {
      session.warnings = 0;
      return false;
    }
    if (session.warnings >= warningsMax) throw loopRefusal(period);
    if (!isRetry) session.warnings++;
    return true;
  }

  #bound({ calls, startedAtMs }: Session, { callsMax, durationMaxMs }: SessionPolicy): void {
    if (callsMax !== undefined && calls >= callsMax) {
      throw limitRefusal('calls', callsMax, calls, `This session has made ${calls} calls, which is its limit.`);
    }
    const ageMs = Math.floor(this.#clock.monotonicMs() - startedAtMs);
    if (durationMaxMs !== undefined && ageMs > durationMaxMs) {
      throw limitRefusal(
        'duration_ms',
        durationMaxMs,
        ageMs,
        `This session has lasted for ${Math.round(ageMs / 1_000)} s; its limit is ${Math.round(durationMaxMs / 1_000)} s.`,
      );
    }
  }
}

function openSession(startedAtMs: number): Session {
  return { startedAtMs, calls: 0, steps: [], request: '', warnings: 0 };
}

/** What the agent did last; undefined before it did anything. */
function stepOf(body: Body): Step | undefined {
  const messages = body['messages'];
  if (!Array.isArray(messages)) return undefined;
  const last = (messages as readonly Body[]).findLast(({ role }) => role === 'assistant');
  if (last === undefined) return undefined;
  const calls = Array.isArray(last['tool_calls']) ? (last['tool_calls'] as readonly { readonly function?: Body }[]) : [];
  const called = calls.map(({ function: tool }) => [tool?.['name'], canonical(tool?.['arguments'])]);
  return { digest: digestOf([called, last['content'] ?? null]), request: digestOf([messages.length, messages.slice(-requestMessages)]) };
}

/** Arguments are the same whatever the order and the spaces a model writes them in. */
function canonical(text: unknown): unknown {
  if (typeof text !== 'string') return text;
  try {
    return sorted(JSON.parse(text), 0);
  } catch {
    return text;
  }
}

function sorted(value: unknown, depth: number): unknown {
  if (typeof value !== 'object' || value === null) return value;
  // What differs below is taken for the same.
  if (depth > depthMax) return null;
  if (Array.isArray(value)) return value.map((item) => sorted(item, depth + 1));
  return Object.entries(value)
    .toSorted(([left], [right]) => (left < right ? -1 : 1))
    .map(([key, item]) => [key, sorted(item, depth + 1)]);
}

function digestOf(value: unknown): string {
  return createHash('sha256').update(JSON.stringify(value)).digest('base64url');
}

/** Length of the cycle that the newest steps are in. */
function periodOf(steps: readonly string[]): number | undefined {
  if (steps.length >= repeatsMin && steps.slice(0, repeatsMin).every((step) => step === steps[0])) return 1;
  return [2, 3].find((period) => {
    const compared = period * (cyclesMin - 1);
    return steps.length >= compared + period && steps.slice(0, compared).every((step, index) => step === steps[index + period]);
  });
}

function loopRefusal(period: number): BulkheadError {
  const what = period === 1 ? 'repeats one step' : `goes round in a circle of ${period} steps`;
  return new BulkheadError('agent_loop_detected', `This session ${what}. Begin a new session, or change what the agent is asked.`, {
    details: { limit: 'session.loop', scope: 'session', period },
  });
}

function limitRefusal(name: string, limit: number, used: number, message: string): BulkheadError {
  return new BulkheadError('session_limit_exceeded', `${message} Begin a new session.`, {
    details: { limit: `session.${name}`, scope: 'session', used, limit_value: limit },
  });
}
