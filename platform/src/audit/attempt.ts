/**
 * How probes act and what they leave behind: a client that asks as one tenant and looks through everything that comes back for other tenants'
 * canaries, the book of results, and the pace that keeps a scheduled run under its share of the capacity.
 */
import { createHash } from 'node:crypto';
import { setTimeout as wait } from 'node:timers/promises';
import type { Clock } from '../primitives/clock.ts';
import type { TenantId } from '../primitives/ids.ts';
import type { AuditAnswer, AuditRequest, AuditTarget } from './audit-ports.ts';
import type { ProbeResult, Surface, Verdict } from './audit-report.ts';
import type { CanaryTokens } from './canary-token.ts';

/** An answer, and the canaries of other tenants in it. */
export interface SeenAnswer extends AuditAnswer {
  readonly foreign: readonly string[];
}

export interface ProbeFinding {
  readonly id: string;
  readonly surface: Surface;
  readonly attacker: string;
  readonly victim: string;
  readonly attempt: string;
  readonly expected: string;
  readonly got: string;
  /** The owner finds it. */
  readonly control: boolean;
  /** It came out. */
  readonly leaked: boolean;
  /** What was expected did not happen, and nothing came out either. */
  readonly unclear?: boolean;
  readonly ms: number;
  readonly answer?: SeenAnswer | undefined;
}

/** Collects results. A leak is a leak with or without its control; anything else that is not certain is INCONCLUSIVE. */
export class AuditBook {
  readonly #results: ProbeResult[] = [];

  get results(): readonly ProbeResult[] {
    return this.#results;
  }

  add(finding: ProbeFinding): void {
    const { id, surface, attacker, victim, attempt, expected, got, control, answer } = finding;
    const verdict = verdictOfFinding(finding);
    this.#results.push({
      id,
      surface,
      attacker,
      victim,
      attempt,
      expected,
      got,
      positiveControl: control ? 'held' : 'missing',
      verdict,
      ms: Math.round(finding.ms * 10) / 10,
      ...(verdict !== 'PASS' && answer !== undefined && { evidence: evidenceOf(answer) }),
    });
  }
}

function verdictOfFinding({ control, leaked, unclear = false }: ProbeFinding): Verdict {
  if (leaked) return 'LEAK';
  return control && !unclear ? 'PASS' : 'INCONCLUSIVE';
}

function evidenceOf({ status, body, foreign }: SeenAnswer): string {
  const ids = foreign.map((token) => `canary:${sha256(token).slice(0, 16)}`);
  return [`status:${status}`, `sha256:${sha256(body)}`, ...ids].join(' ');
}

export function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

/** Time with a request under way, and sleep to keep its share of all time below a maximum. */
export class Pace {
  readonly #clock: Clock;
  readonly #shareMax: number | undefined;
  readonly #startedAtMs: number;
  #busyMs = 0;
  #requests = 0;

  constructor(clock: Clock, shareMax: number | undefined) {
    this.#clock = clock;
    this.#shareMax = shareMax;
    this.#startedAtMs = clock.monotonicMs();
  }

  get requests(): number {
    return this.#requests;
  }

  get share() {
    const elapsedMs = Math.max(1, this.#clock.monotonicMs() - this.#startedAtMs);
    return { max: this.#shareMax ?? null, measured: Math.min(1, this.#busyMs / elapsedMs), busyMs: Math.round(this.#busyMs) };
  }

  /** Counts work as busy, then waits until the share is below its maximum again. */
  async spend<T>(work: () => Promise<T>, signal: AbortSignal, requests = 1): Promise<T> {
    const beganMs = this.#clock.monotonicMs();
    try {
      return await work();
    } finally {
      this.#busyMs += this.#clock.monotonicMs() - beganMs;
      this.#requests += requests;
      await this.#rest(signal);
    }
  }

  async #rest(signal: AbortSignal): Promise<void> {
    if (this.#shareMax === undefined) return;
    // A tenth below the bound: what the run does between its requests is not measured.
    const dueMs = this.#busyMs / (this.#shareMax * 0.9) - (this.#clock.monotonicMs() - this.#startedAtMs);
    if (dueMs > 0) await wait(dueMs, undefined, { signal }).catch(() => {});
  }
}

const attemptsMax = 3;
const againAfterMs = 500;

export interface CallerParts {
  readonly target: AuditTarget;
  readonly tokens: CanaryTokens;
  /** Planted sentences that have no token's form, in letters and digits, and whose they are. */
  readonly facts: Map<string, TenantId>;
  readonly pace: Pace;
  readonly signal: AbortSignal;
}

/** Asks as one caller. Everything that comes back is read for canaries of others. */
export class Caller {
  readonly #parts: CallerParts;
  readonly tenantId: TenantId | undefined;
  readonly #credential: string | undefined;

  /** `tenantId` undefined: somebody who is no tenant, to whom every canary is foreign. */
  constructor(parts: CallerParts, tenantId: TenantId | undefined, credential: string | undefined) {
    this.#parts = parts;
    this.tenantId = tenantId;
    this.#credential = credential;
  }

  /** An answer that says `not now` proves nothing either way and is asked for again, twice at most. */
  async ask(request: AuditRequest): Promise<SeenAnswer> {
    const { pace, signal } = this.#parts;
    for (let attempt = 1; ; attempt++) {
      const answer = await pace.spend(() => this.askUnpaced(request), signal);
      if ((answer.status !== 503 && answer.status !== 429) || attempt === attemptsMax) return answer;
      await wait(attempt * againAfterMs, undefined, { signal });
    }
  }

  /** For requests that run beside each other; their caller paces them together. */
  async askUnpaced(request: AuditRequest): Promise<SeenAnswer> {
    const { target, signal } = this.#parts;
    signal.throwIfAborted();
    const headers = { ...(this.#credential !== undefined && { authorization: `Bearer ${this.#credential}` }), ...request.headers };
    const answer = await target.send({ ...request, headers }, signal);
    return { ...answer, foreign: this.#foreignIn(answer, request) };
  }

  /** The parsed body of an answer that must be a success. */
  async need<T>(request: AuditRequest): Promise<T> {
    const answer = await this.ask(request);
    if (answer.status >= 300) throw new PlantingError(`${request.method} ${request.path.split('?')[0]} answered ${answer.status}`);
    return JSON.parse(answer.body) as T;
  }

  /** What the request said itself may come back in an echo; probes that say a canary look for another one beside it. */
  #foreignIn({ body, headers }: AuditAnswer, request: AuditRequest): readonly string[] {
    const { tokens, facts } = this.#parts;
    const { tenantId } = this;
    const text = `${body}\n${Object.values(headers).join('\n')}`;
    const said = `${request.path} ${typeof request.body === 'object' && !Buffer.isBuffer(request.body) ? JSON.stringify(request.body) : ''}`;
    const isForeign = (token: string) => tenantId === undefined || !tokens.belongsTo(token, tenantId);
    const found = tokens.find(text).flatMap(({ token }) => (isForeign(token) && !said.includes(token) ? [token] : []));
    const letters = lettersOf(text);
    const toldFacts = [...facts].flatMap(([fact, owner]) =>
      owner !== tenantId && letters.includes(fact) && !lettersOf(said).includes(fact) ? [fact] : [],
    );
    return [...found, ...toldFacts];
  }
}

/** How facts are compared: a paraphrase keeps the code in it, whatever is around it. */
export function lettersOf(text: string): string {
  return text.replaceAll(/[^A-Za-z0-9]+/g, '').toLowerCase();
}

/** The ground could not be prepared; the run is inconclusive. Its message has no content in it. */
export class PlantingError extends Error {}
