/**
 * The engine of the VTC paper in virtual time: continuous batching over a pool of `poolTokens` tokens, with the admission of its artifact (LightLLM's look
 * at the future peak, tried after ten decode steps and then at every step until something was let in). Times are fitted to the artifact's
 * `cost_profile.json` (A10G, Llama-2-7B), then scaled by one number so that VTC under `overload` has the artifact's throughput: that one is a fit.
 */
import type { Permit } from '../../src/scheduler/fair-queue.ts';
import { type Contestant, contestantOf, type Policy } from './contestant.ts';
import type { Arrival, Outcome } from './outcome.ts';
import { Predictions, ticketOf } from './slot-simulation.ts';
import { VirtualClock } from './virtual-clock.ts';

export const poolTokens = 10_000;
const batchTokensMax = Math.max(poolTokens / 6, 3_072);
const batchRequestsMax = 1_000;
const decodeStepsMin = 10;
const timeScale = 1.078;
const idleMs = 10;
/** The paper's price of an output token. */
export const outputTokenCost = 2;
/** More than any workload needs. */
const runMsMax = 7_200_000;
/** The engine has none; far enough that no estimate of a wait comes near it. */
const noDeadlineMs = 1e15;

function decodeMs(requests: number, heldTokens: number): number {
  return timeScale * (20.43 + 0.2126 * requests + 0.00156 * heldTokens);
}

function prefillMs(inputTokens: number): number {
  return timeScale * (53 + 0.209 * inputTokens);
}

export interface EngineRun {
  readonly policy: Policy;
  /** In order of time. */
  readonly arrivals: readonly Arrival[];
  readonly requestsPerMinute: number;
  /** Tokens of the pool that each client with requests in the batch takes for its adapter: 4 x the rank, also when the adapters are not computed. */
  readonly adapterTokens: number;
}

/** Until everything was served, as the artifact's runs. One outcome for each arrival, in order of arrival. */
export function simulateEngine(run: EngineRun): readonly Outcome[] {
  return new EngineSimulation(run).outcomes();
}

interface Running {
  readonly place: number;
  readonly arrival: Arrival;
  readonly permit: Permit;
  readonly startedAtMs: number;
  firstTokenAtMs: number;
  produced: number;
}

class EngineSimulation {
  readonly #arrivals: readonly Arrival[];
  readonly #adapterTokens: number;
  readonly #clock = new VirtualClock();
  readonly #contestant: Contestant;
  readonly #predictions = new Predictions();
  readonly #outcomes: Outcome[] = [];
  /** Places of each tenant's waiting requests, oldest first. */
  readonly #waiting = new Map<string, number[]>();
  #batch: Running[] = [];
  /** Let in by the queue and not yet in the batch; one that turned out not to fit stays here and goes first. */
  #granted: Running[] = [];
  #stepsSinceAdmission = 0;

  constructor({ policy, arrivals, requestsPerMinute, adapterTokens }: EngineRun) {
    const options = { clock: this.#clock, outputTokenCost, waitMaxMs: noDeadlineMs, quantum: poolTokens / 20 };
    this.#arrivals = arrivals;
    this.#adapterTokens = adapterTokens;
    this.#contestant = contestantOf(policy, options, requestsPerMinute);
  }

  outcomes(): readonly Outcome[] {
    while (this.#outcomes.length < this.#arrivals.length || this.#isBusy()) {
      if (this.#clock.monotonicMs() > runMsMax) throw new Error('the engine does not get done');
      this.#takeArrivals();
      this.#step();
    }
    return this.#outcomes;
  }

  #isBusy(): boolean {
    return this.#batch.length > 0 || this.#granted.length > 0 || this.#contestant.next() !== undefined;
  }

  #step(): void {
    const mayAdmit = this.#batch.length === 0 || this.#stepsSinceAdmission >= decodeStepsMin;
    const fresh = mayAdmit ? this.#admit() : [];
    if (fresh.length > 0) this.#prefill(fresh);
    else if (this.#batch.length > 0) this.#decode();
    else this.#pass(idleMs);
  }

  #takeArrivals(): void {
    const nowMs = this.#clock.monotonicMs();
    for (
      let arrival = this.#arrivals[this.#outcomes.length];
      arrival !== undefined && arrival.atMs <= nowMs;
      arrival = this.#arrivals[this.#outcomes.length]
    ) {
      this.#arrive(arrival);
    }
  }

  #arrive(arrival: Arrival): void {
    const place = this.#outcomes.length;
    this.#outcomes.push(arrival);
    const line = this.#waiting.get(arrival.tenant) ?? [];
    this.#waiting.set(arrival.tenant, line);
    line.push(place);
    const startedAtMs = Number.NaN;
    this.#contestant.submit(ticketOf(arrival, this.#predictions.of(arrival.tenant)), {
      granted: (permit) => {
        line.splice(line.indexOf(place), 1);
        this.#granted.push({ place, arrival, permit, startedAtMs, firstTokenAtMs: startedAtMs, produced: 0 });
        if (this.#granted.length > 1) throw new Error('the queue let in more than one at a time');
      },
      refused: () => {
        line.splice(line.indexOf(place), 1);
        this.#outcomes[place] = { ...arrival, refused: { cause: 'requests_per_minute', atMs: this.#clock.monotonicMs() } };
      },
    });
  }

  /** Takes from the queue, in its order, while the next fits: nobody is passed over. */
  #admit(): Running[] {
    const fresh: Running[] = [];
    const fits = (arrival: Arrival) =>
      inputOf(fresh) + arrival.inputTokens <= batchTokensMax && this.#fitsPool([...this.#batch, ...fresh], arrival);
    for (;;) {
      const held = this.#granted[0];
      if (held !== undefined) {
        if (!fits(held.arrival)) return fresh;
        fresh.push({ ...held, startedAtMs: this.#clock.monotonicMs() });
        this.#granted.shift();
        continue;
      }
      const next = this.#oldestOf(this.#contestant.next());
      const isFull = this.#batch.length + fresh.length >= batchRequestsMax;
      if (next === undefined || isFull || !fits(next)) return fresh;
      // One permit more, and the queue gives it to whom it will. Among equals that may be another than the one asked about.
      this.#contestant.setCapacity(this.#batch.length + fresh.length + 1);
    }
  }

  #fitsPool(running: readonly Running[], arrival: Arrival): boolean {
    const clients = new Set([arrival.tenant, ...running.map((each) => each.arrival.tenant)]);
    return peakTokens(running, arrival) < poolTokens - this.#adapterTokens * clients.size;
  }

  #oldestOf(tenantId: string | undefined): Arrival | undefined {
    const place = tenantId === undefined ? undefined : this.#waiting.get(tenantId)?.[0];
    return place === undefined ? undefined : this.#outcomes[place];
  }

  #prefill(fresh: readonly Running[]): void {
    this.#pass(prefillMs(inputOf(fresh)));
    for (const running of fresh) {
      running.firstTokenAtMs = this.#clock.monotonicMs();
      this.#produce(running);
    }
    this.#batch.push(...fresh);
    this.#stepsSinceAdmission = 0;
    this.#endFinished();
  }

  #decode(): void {
    this.#pass(
      decodeMs(
        this.#batch.length,
        this.#batch.reduce((sum, { arrival, produced }) => sum + arrival.inputTokens + produced, 0),
      ),
    );
    for (const running of this.#batch) this.#produce(running);
    this.#stepsSinceAdmission++;
    this.#endFinished();
  }

  #produce(running: Running): void {
    running.produced++;
    running.permit.reportOutput(1);
  }

  #endFinished(): void {
    const ended = this.#batch.filter(({ arrival, produced }) => produced >= arrival.outputTokens);
    if (ended.length === 0) return;
    this.#batch = this.#batch.filter(({ arrival, produced }) => produced < arrival.outputTokens);
    // Before the permits return, so that none is given away outside of admission.
    this.#contestant.setCapacity(this.#batch.length + this.#granted.length);
    for (const { place, arrival, permit, startedAtMs, firstTokenAtMs } of ended) {
      this.#outcomes[place] = { ...arrival, served: { startedAtMs, firstTokenAtMs, endedAtMs: this.#clock.monotonicMs() } };
      this.#predictions.learn(arrival);
      permit.finish(arrival);
    }
  }

  #pass(ms: number): void {
    this.#clock.moveTo(this.#clock.monotonicMs() + ms);
  }
}

function inputOf(requests: readonly Running[]): number {
  return requests.reduce((sum, { arrival }) => sum + arrival.inputTokens, 0);
}

/**
 * The most tokens the pool will hold if `arrival` joins: when the request with the i-th most tokens to go ends, i requests have grown by what it had left
 * (LightLLM's `_can_add_new_req`). Lengths are known to the engine, as clients of the artifact ask for exactly what they get.
 */
export function peakTokens(running: readonly Pick<Running, 'arrival' | 'produced'>[], arrival: Arrival): number {
  const sizes = running
    .map(({ arrival: { inputTokens, outputTokens }, produced }) => ({ held: inputTokens + produced, left: outputTokens - produced - 1 }))
    .concat({ held: arrival.inputTokens + 1, left: arrival.outputTokens - 1 })
    .toSorted((one, other) => other.left - one.left);
  let held = 0;
  let peak = 0;
  for (const [index, size] of sizes.entries()) {
    held += size.held;
    peak = Math.max(peak, held + size.left * (index + 1));
  }
  return peak;
}
