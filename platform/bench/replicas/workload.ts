/**
 * The load that `bench:replicas` gives to each kind of queue: tenants with work waiting all the time, one of which comes by the first replica alone, and one that asks now and then.
 * In real time, as fast as the simulations of `test/fairness`: a request takes 50 ms, and 10 ms for each token. The same seed gives the same sizes.
 */
import { setTimeout as wait } from 'node:timers/promises';
import { parseTenantId } from '../../src/primitives/ids.ts';
import { type Random, seededRandom } from '../../src/primitives/random.ts';
import type { FairQueue, Ticket } from '../../src/scheduler/fair-queue.ts';

export interface WorkloadOptions {
  readonly queues: readonly FairQueue[];
  readonly seed: number;
  readonly seconds: number;
  /** Before that nothing is counted. */
  readonly warmSeconds: number;
}

export interface Outcome {
  /** The largest difference of service between two tenants that had work waiting all the time, over any part of the time. */
  readonly worstDifference: number;
  /** Service of the tenant that comes by one replica, of the mean of the others that wait. */
  readonly aloneShare: number;
  readonly costPerSecond: number;
  readonly requests: number;
  readonly lightWaitsMs: readonly number[];
  readonly runningMax: number;
}

interface Served {
  readonly tenant: number;
  readonly cost: number;
}

const firstTokenMs = 50;
const tokenMs = 10;
const chunkTokens = 16;
const outputTokenCost = 4;
/** Input and output tokens of each tenant's requests, on average; sizes vary by a lognormal with sigma 0.5. */
const heavy = [
  { input: 64, output: 64 },
  { input: 256, output: 128 },
  { input: 64, output: 256 },
  { input: 512, output: 64 },
] as const;
const depth = 80;
const light = { input: 64, output: 32 };
const lightPauseMs = 80;
const light_ = heavy.length;

export class Workload {
  readonly #options: WorkloadOptions;
  readonly #random: Random;
  readonly #stop = new AbortController();
  readonly #served: Served[] = [];
  readonly #lightWaits: number[] = [];
  #requests = 0;
  #running = 0;
  #runningMax = 0;
  #isCounting = false;
  #arrivals = 0;

  constructor(options: WorkloadOptions) {
    this.#options = options;
    this.#random = seededRandom(options.seed);
  }

  get running(): number {
    return this.#running;
  }

  async run(during: (workload: Workload) => Promise<unknown> = async () => {}): Promise<Outcome> {
    const { seconds, warmSeconds } = this.#options;
    const loops = heavy.flatMap((_, tenant) => Array.from({ length: depth }, () => this.#flood(tenant)));
    loops.push(this.#askNowAndThen());
    await wait(warmSeconds * 1_000);
    this.count();
    await Promise.all([wait(seconds * 1_000), during(this)]);
    this.#isCounting = false;
    const outcome = this.#outcome(seconds);
    this.#stop.abort();
    await Promise.all(loops);
    return outcome;
  }

  /** Forgets what was counted so far. */
  count(): void {
    this.#isCounting = true;
    this.#runningMax = this.#running;
  }

  get runningMax(): number {
    return this.#runningMax;
  }

  async #flood(tenant: number): Promise<void> {
    const { input, output } = heavy[tenant] as (typeof heavy)[0];
    while (!this.#stop.signal.aborted) {
      const factor = Math.exp(0.5 * gaussian(this.#random) - 0.125);
      await this.#serve(tenant, { input, output: Math.max(1, Math.round(output * factor)), predicted: output });
    }
  }

  async #askNowAndThen(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      const queueMs = await this.#serve(light_, { ...light, predicted: light.output });
      if (queueMs !== undefined && this.#isCounting) this.#lightWaits.push(queueMs);
      await wait(lightPauseMs * 2 * this.#random.next());
    }
  }

  /** Milliseconds it waited; undefined when the run was over before its turn. */
  async #serve(
    tenant: number,
    job: { readonly input: number; readonly output: number; readonly predicted: number },
  ): Promise<number | undefined> {
    const { queues } = this.#options;
    const replica = tenant === 0 ? 0 : this.#arrivals++ % queues.length;
    const queue = queues[replica] as FairQueue;
    const permit = await queue.acquire(ticketOf(tenant, job), this.#stop.signal).catch(() => undefined);
    if (permit === undefined) return undefined;
    this.#runningMax = Math.max(this.#runningMax, ++this.#running);
    this.#count(tenant, job.input);
    await wait(firstTokenMs);
    for (let made = 0; made < job.output; made += chunkTokens) {
      const tokens = Math.min(chunkTokens, job.output - made);
      await wait(tokens * tokenMs);
      permit.reportOutput(tokens);
      this.#count(tenant, outputTokenCost * tokens);
    }
    this.#running--;
    if (this.#isCounting) this.#requests++;
    permit.finish({ inputTokens: job.input, outputTokens: job.output });
    return permit.queueMs;
  }

  #count(tenant: number, cost: number): void {
    if (this.#isCounting) this.#served.push({ tenant, cost });
  }

  #outcome(seconds: number): Outcome {
    const service = Array.from({ length: light_ + 1 }, () => 0);
    for (const { tenant, cost } of this.#served) service[tenant] = (service[tenant] as number) + cost;
    const [alone = 0, ...others] = service.slice(0, light_);
    return {
      worstDifference: worstDifference(this.#served),
      aloneShare: alone / (others.reduce((sum, each) => sum + each, 0) / others.length),
      costPerSecond: service.reduce((sum, each) => sum + each, 0) / seconds,
      requests: this.#requests,
      lightWaitsMs: this.#lightWaits.toSorted((left, right) => left - right),
      runningMax: this.#runningMax,
    };
  }
}

function worstDifference(served: readonly Served[]): number {
  let worst = 0;
  for (let one = 0; one < light_; one++) {
    for (let other = one + 1; other < light_; other++) {
      let [difference, least, most] = [0, 0, 0];
      for (const { tenant, cost } of served) {
        if (tenant === one) difference += cost;
        else if (tenant === other) difference -= cost;
        least = Math.min(least, difference);
        most = Math.max(most, difference);
      }
      worst = Math.max(worst, most - least);
    }
  }
  return worst;
}

function ticketOf(tenant: number, { input, predicted }: { readonly input: number; readonly predicted: number }): Ticket {
  const tenantId = parseTenantId(`tenant-${tenant}`);
  if (tenantId === undefined) throw new Error('no tenant id');
  return {
    poolId: 'pool',
    tenantId,
    workClass: 'interactive',
    user: 'user',
    weight: 1,
    inputTokens: input,
    predictedOutputTokens: predicted,
    bytes: 100,
  };
}

/** Box and Muller 1958. */
function gaussian(random: Random): number {
  return Math.sqrt(-2 * Math.log(1 - random.next())) * Math.cos(2 * Math.PI * random.next());
}
