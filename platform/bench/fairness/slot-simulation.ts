/**
 * An upstream with a fixed number of slots in virtual time: a request holds one for its prefill and a fixed time a token, as an interposed scheduler sees a
 * provider. No randomness of its own and no timers: the same arrivals give the same outcomes.
 */
import { parseTenantId, type TenantId } from '../../src/primitives/ids.ts';
import type { Permit, Ticket } from '../../src/scheduler/fair-queue.ts';
import { QueueRefusal } from '../../src/scheduler/refusals.ts';
import { EventHeap } from '../../test/support/event-heap.ts';
import { type Contestant, contestantOf, type Policy, poolId } from './contestant.ts';
import { type Arrival, type Outcome, overlapMs, type RefusalCause, type Span } from './outcome.ts';
import { VirtualClock } from './virtual-clock.ts';

export interface Upstream {
  readonly permits: number;
  /** Times in which nothing new is let in, as after a 429; what runs goes on. */
  readonly pauses?: readonly Span[];
}

export interface SlotRun extends Upstream {
  readonly policy: Policy;
  /** In order of time. */
  readonly arrivals: readonly Arrival[];
  readonly untilMs: number;
  readonly waitMaxMs: number;
  readonly requestsPerMinute: number;
  readonly outputTokenCost: number;
}

const prefillBaseMs = 50;
const prefillTokenMs = 0.2;
export const tokenMs = 10;
/** Tokens between two reports. */
const chunkTokens = 16;
/** The VTC artifact's quantum: a twentieth of its pool of tokens. */
const quantum = 500;

export function serviceMsOf({ inputTokens, outputTokens }: Pick<Arrival, 'inputTokens' | 'outputTokens'>): number {
  return prefillBaseMs + prefillTokenMs * inputTokens + tokenMs * outputTokens;
}

/** One outcome for each arrival, in the same order. */
export function simulateSlots(run: SlotRun): readonly Outcome[] {
  return new SlotSimulation(run).outcomes();
}

class SlotSimulation {
  readonly #run: SlotRun;
  readonly #clock = new VirtualClock();
  readonly #events = new EventHeap();
  readonly #contestant: Contestant;
  readonly #predictions = new Predictions();
  readonly #outcomes: Outcome[] = [];
  #expiresAtMs = Number.POSITIVE_INFINITY;

  constructor(run: SlotRun) {
    const { policy, outputTokenCost, waitMaxMs, requestsPerMinute } = run;
    this.#run = run;
    this.#contestant = contestantOf(policy, { clock: this.#clock, outputTokenCost, waitMaxMs, quantum }, requestsPerMinute);
  }

  outcomes(): readonly Outcome[] {
    const { arrivals, permits, pauses = [], untilMs } = this.#run;
    this.#contestant.setCapacity(permits);
    for (const { fromMs, untilMs: endMs } of pauses) {
      this.#events.push(fromMs, () => this.#contestant.setCapacity(0));
      this.#events.push(endMs, () => this.#contestant.setCapacity(permits));
    }
    for (const arrival of arrivals) {
      this.#runEvents(arrival.atMs);
      this.#clock.moveTo(arrival.atMs);
      this.#arrive(arrival);
    }
    this.#runEvents(untilMs);
    return this.#outcomes;
  }

  #runEvents(untilMs: number): void {
    for (let next = this.#events.peek(); next !== undefined && next.atMs <= untilMs; next = this.#events.peek()) {
      this.#events.pop();
      this.#clock.moveTo(next.atMs);
      next.act();
    }
  }

  #arrive(arrival: Arrival): void {
    const place = this.#outcomes.length;
    this.#outcomes.push(arrival);
    const ticket = ticketOf(arrival, this.#predictions.of(arrival.tenant));
    this.#contestant.submit(ticket, {
      granted: (permit) => this.#serve(place, arrival, permit),
      refused: (error) => {
        this.#outcomes[place] = { ...arrival, refused: { cause: causeOf(error), atMs: this.#clock.monotonicMs() } };
      },
    });
    this.#armExpiry();
  }

  #armExpiry(): void {
    const deadlineMs = this.#contestant.nextDeadlineMs();
    if (deadlineMs === undefined || deadlineMs >= this.#expiresAtMs) return;
    this.#expiresAtMs = deadlineMs;
    this.#events.push(deadlineMs, () => {
      this.#expiresAtMs = Number.POSITIVE_INFINITY;
      this.#contestant.expire();
      this.#armExpiry();
    });
  }

  #serve(place: number, arrival: Arrival, permit: Permit): void {
    const startedAtMs = this.#clock.monotonicMs();
    const firstTokenAtMs = startedAtMs + serviceMsOf({ ...arrival, outputTokens: 0 });
    // The very number at which the last chunk comes, or two requests would seem to share a slot for a part of a nanosecond.
    const endedAtMs = firstTokenAtMs + arrival.outputTokens * tokenMs;
    this.#outcomes[place] = { ...arrival, served: { startedAtMs, firstTokenAtMs, endedAtMs } };
    this.#stream(arrival, permit, { producedTokens: 0, firstTokenAtMs });
  }

  #stream(arrival: Arrival, permit: Permit, { producedTokens, firstTokenAtMs }: { producedTokens: number; firstTokenAtMs: number }): void {
    const tokens = Math.min(chunkTokens, arrival.outputTokens - producedTokens);
    const produced = producedTokens + tokens;
    this.#events.push(firstTokenAtMs + produced * tokenMs, () => {
      permit.reportOutput(tokens);
      if (produced < arrival.outputTokens) {
        this.#stream(arrival, permit, { producedTokens: produced, firstTokenAtMs });
        return;
      }
      this.#predictions.learn(arrival);
      permit.finish(arrival);
    });
  }
}

/** As `admission/estimate.ts` predicts for the queue: a mean of each tenant's answers, the latest counting a fifth. */
export class Predictions {
  readonly #means = new Map<string, number>();

  of(tenant: string): number {
    return Math.ceil(this.#means.get(tenant) ?? 256);
  }

  learn({ tenant, outputTokens }: Pick<Arrival, 'tenant' | 'outputTokens'>): void {
    const mean = this.#means.get(tenant);
    this.#means.set(tenant, mean === undefined ? outputTokens : mean + 0.2 * (outputTokens - mean));
  }
}

export function ticketOf({ tenant, weight, inputTokens }: Arrival, predictedOutputTokens: number): Ticket {
  const tenantId = tenantIdOf(tenant);
  return { poolId, tenantId, workClass: 'interactive', user: 'user', weight, inputTokens, predictedOutputTokens, bytes: 1_000 };
}

function tenantIdOf(name: string): TenantId {
  const id = parseTenantId(name);
  if (id === undefined) throw new Error(`${name} is no tenant id`);
  return id;
}

function causeOf(error: Error): RefusalCause {
  return error instanceof QueueRefusal ? error.shedCause : 'requests_per_minute';
}

/** Pauses of `lastsMs` at the end of every `everyMs`. */
export function pausesIn(span: Span, everyMs: number, lastsMs: number): readonly Span[] {
  const pauses: Span[] = [];
  for (let endMs = everyMs; overlapMs(span, endMs - lastsMs, endMs) > 0; endMs += everyMs)
    pauses.push({ fromMs: endMs - lastsMs, untilMs: endMs });
  return pauses;
}
