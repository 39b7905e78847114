/**
 * 64 requests at once, round after round, against the exact bucket: integers, no rounding. Time stands while a round is asked and moves by whole milliseconds between two, so
 * that whatever the order of the 64, they may take no more than the bucket holds, and what was refused must not fit what they left.
 */
import type { LimitScope, LimitStore } from '../../src/admission/limit-store.ts';
import { ManualClock } from '../../src/primitives/clock.ts';
import { type Random, seededRandom } from '../../src/primitives/random.ts';

export interface OverAdmission {
  readonly asked: number;
  readonly admitted: number;
  /** Beyond the model, in requests, tokens, slots or nano-dollars. */
  readonly over: number;
  /** Requests that were refused and fitted. */
  readonly under: number;
}

export type OpenStores = (clock: ManualClock) => Promise<readonly LimitStore[]>;

const atOnce = 64;
const leaseMs = 3_600_000;
const limits = { requestsPerMinute: 600, tokensPerMinute: 600_000, concurrency: 48 };
/** So that the money binds towards the end. */
const budgetPerRoundNanoUsd = 150_000;

/** Holds limit * 60,000 units, so that a millisecond refills `limit` of them. */
class ExactBucket {
  #units: number;
  readonly #limit: number;

  constructor(limit: number) {
    this.#limit = limit;
    this.#units = limit * 60_000;
  }

  get whole(): number {
    return Math.floor(this.#units / 60_000);
  }

  pass(ms: number): void {
    this.#units = Math.min(this.#limit * 60_000, this.#units + ms * this.#limit);
  }

  add(amount: number): void {
    this.#units = Math.min(this.#limit * 60_000, this.#units + amount * 60_000);
  }
}

interface Call {
  readonly id: string;
  readonly tokens: number;
  readonly cost: number;
}

class Model {
  readonly requests = new ExactBucket(limits.requestsPerMinute);
  readonly tokens = new ExactBucket(limits.tokensPerMinute);
  slots = limits.concurrency;
  money: number;
  readonly live: Call[] = [];

  constructor(budgetNanoUsd: number) {
    this.money = budgetNanoUsd;
  }

  take(call: Call): void {
    this.requests.add(-1);
    this.tokens.add(-call.tokens);
    this.slots--;
    this.money -= call.cost;
    this.live.push(call);
  }

  end(call: Call, tokens: number, cost: number): void {
    this.tokens.add(call.tokens - tokens);
    this.slots++;
    this.money += call.cost - cost;
  }

  /** How far these together are beyond what there is; a bucket in debt holds nothing. */
  overBy(calls: readonly Call[]): number {
    const sum = (amountOf: (call: Call) => number) => calls.reduce((total, call) => total + amountOf(call), 0);
    const tokens = sum((call) => call.tokens) - Math.max(0, this.tokens.whole);
    const money = sum((call) => call.cost) - this.money;
    return Math.max(0, calls.length - Math.max(0, this.requests.whole), tokens, calls.length - this.slots, money);
  }

  fits({ tokens, cost }: Call): boolean {
    const hasTokens = tokens === 0 || this.tokens.whole >= tokens;
    return this.requests.whole >= 1 && hasTokens && this.slots >= 1 && this.money >= cost && this.money > 0;
  }
}

export async function measureOverAdmission(
  open: OpenStores,
  { rounds, seed }: { readonly rounds: number; readonly seed: number },
): Promise<OverAdmission> {
  const random = seededRandom(seed);
  const clock = new ManualClock();
  const stores = await open(clock);
  const budgetNanoUsd = rounds * budgetPerRoundNanoUsd;
  const model = new Model(budgetNanoUsd);
  const scopes = scopesOf(budgetNanoUsd);
  const found = { asked: 0, admitted: 0, over: 0, under: 0 };
  for (let round = 0; round < rounds; round++) {
    const calls = Array.from({ length: atOnce }, (_, index): Call => {
      const tokens = wholeBelow(random, 4_000);
      return { id: `r${round}-${index}`, tokens, cost: tokens * 10 };
    });
    const kinds = await Promise.all(calls.map((call, index) => ask(stores[index % stores.length] as LimitStore, call, scopes)));
    const refused = calls.filter((_, index) => kinds[index] !== 'reserved');
    const admitted = calls.filter((call) => !refused.includes(call));
    found.over = Math.max(found.over, model.overBy(admitted));
    for (const call of admitted) model.take(call);
    found.asked += calls.length;
    found.admitted += admitted.length;
    found.under += refused.filter((call) => model.fits(call)).length;
    await endSome(stores, model, random);
    const ms = wholeBelow(random, 3_000);
    clock.advance(ms);
    model.requests.pass(ms);
    model.tokens.pass(ms);
  }
  return found;
}

function scopesOf(budgetNanoUsd: number): readonly LimitScope[] {
  const budget = { limitNanoUsd: budgetNanoUsd, isHard: true, isKept: false, period: { id: 'run', endsAtMs: Number.MAX_SAFE_INTEGER } };
  return [
    { name: 'tenant', key: 't:4.acme', limits, budget },
    { name: 'key', key: 't:4.acme:k:2.k1', limits: {} },
  ];
}

async function ask(store: LimitStore, { id, tokens, cost }: Call, scopes: readonly LimitScope[]): Promise<string> {
  const amounts = { inputTokens: tokens, outputTokens: 0, costNanoUsd: cost };
  return (await store.reserve({ reservationId: id, leaseMs, amounts, scopes })).kind;
}

/** About half of what runs ends: with what it took, less, or (tokens alone) more, which becomes debt. */
async function endSome(stores: readonly LimitStore[], model: Model, random: Random): Promise<void> {
  for (const call of model.live.splice(0)) {
    if (random.next() < 0.5) {
      model.live.push(call);
      continue;
    }
    const tokens = wholeBelow(random, call.tokens * 2);
    const cost = Math.min(call.cost, wholeBelow(random, call.cost));
    // By the store that has it.
    const owner = stores[Number(call.id.split('-')[1]) % stores.length] as LimitStore;
    await owner.settle(call.id, { inputTokens: tokens, outputTokens: 0, costNanoUsd: cost });
    model.end(call, tokens, cost);
  }
}

function wholeBelow(random: Random, bound: number): number {
  return Math.floor(random.next() * (bound + 1));
}
