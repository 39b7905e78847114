/**
 * What a reservation does to one scope. GCRA: one number per rate, the theoretical arrival time (TAT), in microseconds of the monotonic clock; admit when
 * `max(TAT, now) + n * T - now <= burst * T`. A rate of r per minute has T = 60e6 / r µs and a burst of one minute's worth.
 *
 * TAT is a double: one hour of microseconds (3.6e9) leaves 20 bits for fractions of a token, and a bucket never holds more than its debt.
 */

import { assert } from '../primitives/assert.ts';
import type { LimitPolicy } from '../tenancy/tenant.ts';
import type { Amounts, LimitDimension, LimitScope, LimitState, RateDimension, ReserveOutcome, ReserveRequest } from './limit-store.ts';

const minuteUs = 60_000_000;
/** Nobody knows when a slot or set-aside money returns; a second is short for a person and long for a robot. */
const unknownWaitMs = 1_000;
/** An idle budget is forgotten after this long, and read again when it is needed; an idle session is over. */
const moneyKeptUs = 60 * minuteUs;

/** One count that is not a number would stop a bucket for ever. */
export function assertWhole({ inputTokens, outputTokens, costNanoUsd }: Amounts): void {
  for (const amount of [inputTokens, outputTokens, costNanoUsd]) assert(Number.isSafeInteger(amount) && amount >= 0, 'amounts are whole');
}

export interface ScopeState {
  /** Of each of `rates`. */
  readonly tats: number[];
  inFlight: number;
  usedAtUs: number;
  /** Of the present period; replaced as a whole by the next one's. */
  money: Money | undefined;
}

interface Money {
  readonly periodId: string;
  spent: number;
  reserved: number;
}

/** A scope with what is known of it: looked up once for a reservation. A state that is in use is never swept, so a lease may keep it. */
export interface Found {
  readonly scope: LimitScope;
  readonly state: ScopeState;
  /** The period that was reserved in: it may have ended when the reservation does. */
  money?: Money | undefined;
}

export interface Moment {
  /** Of the monotonic clock. */
  readonly us: number;
  readonly wallMs: number;
}

interface Change {
  readonly from: Amounts;
  readonly to: Amounts;
}

interface Rate {
  readonly dimension: RateDimension;
  readonly limitOf: (limits: LimitPolicy) => number | undefined;
  readonly amountOf: (amounts: Amounts) => number;
}

export const rates: readonly Rate[] = [
  { dimension: 'requests', limitOf: (limits) => limits.requestsPerMinute, amountOf: () => 1 },
  {
    dimension: 'tokens',
    limitOf: (limits) => limits.tokensPerMinute,
    amountOf: ({ inputTokens, outputTokens }) => inputTokens + outputTokens,
  },
  { dimension: 'input_tokens', limitOf: (limits) => limits.inputTokensPerMinute, amountOf: ({ inputTokens }) => inputTokens },
  { dimension: 'output_tokens', limitOf: (limits) => limits.outputTokensPerMinute, amountOf: ({ outputTokens }) => outputTokens },
];

export function newState(): ScopeState {
  return { tats: [0, 0, 0, 0], inFlight: 0, usedAtUs: 0, money: undefined };
}

export function isIdle({ tats, inFlight, money, usedAtUs }: ScopeState, { us }: Moment): boolean {
  return inFlight === 0 && tats.every((tat) => tat <= us) && (money === undefined || usedAtUs + moneyKeptUs <= us);
}

/** Reads only. What no wait can help, or else the refusal with the longest wait over all scopes. */
export function refusalOf(request: ReserveRequest, found: readonly Found[], now: Moment): ReserveOutcome | undefined {
  const { amounts, share = 1 } = request;
  let worst: (ReserveOutcome & { readonly kind: 'denied' }) | undefined;
  const deny = (binding: LimitState, retryAfterMs: number) => {
    if (worst === undefined || retryAfterMs > worst.retryAfterMs) {
      worst = { kind: 'denied', binding, used: binding.limit - binding.remaining, retryAfterMs };
    }
  };
  for (const each of found) {
    for (const [index, rate] of rates.entries()) {
      const limit = rate.limitOf(each.scope.limits);
      const amount = rate.amountOf(amounts);
      if (limit === undefined || amount === 0) continue;
      const part = limit * share < 1 ? 1 : share;
      if (amount > limit * part) return { kind: 'too_large', binding: rateState(each, index, now), requested: amount };
      const overUs = tatAfter(tatOf(each.state, index, now), amount, limit) - now.us - minuteUs * part;
      if (overUs > 0.5) deny(rateState(each, index, now), Math.ceil(overUs / 1_000));
    }
    const slots = each.scope.limits.concurrency;
    if (slots !== undefined && each.state.inFlight >= Math.max(1, Math.floor(slots * share))) deny(slotState(each, slots), unknownWaitMs);
    const isShort = shortOfMoney(each, amounts.costNanoUsd);
    if (isShort === 'for good') {
      const binding = moneyState(each, now);
      return { kind: 'exhausted', binding, used: each.state.money?.spent ?? 0, requested: amounts.costNanoUsd };
    }
    if (isShort === 'for now') deny(moneyState(each, now), unknownWaitMs);
  }
  return worst;
}

/** Counts the request in. */
export function take(found: Found, amounts: Amounts, now: Moment): void {
  const { scope, state } = found;
  for (const [index, rate] of rates.entries()) {
    const limit = rate.limitOf(scope.limits);
    if (limit !== undefined) state.tats[index] = tatAfter(tatOf(state, index, now), rate.amountOf(amounts), limit);
  }
  state.inFlight++;
  state.usedAtUs = now.us;
  found.money = scope.budget && state.money;
  if (found.money !== undefined) found.money.reserved += amounts.costNanoUsd;
}

/** Counts it out, and what it really used in. */
export function release(found: Found, change: Change, now: Moment): void {
  found.state.inFlight--;
  found.state.usedAtUs = now.us;
  correctRates(found, change, now);
  if (found.money === undefined) return;
  found.money.reserved -= change.from.costNanoUsd;
  found.money.spent += change.to.costNanoUsd;
}

/** After it was counted out at `from`. */
export function correct(found: Found, change: Change, now: Moment): void {
  correctRates(found, change, now);
  const { money } = found.state;
  if (money !== undefined && money.periodId === found.scope.budget?.period.id)
    money.spent += change.to.costNanoUsd - change.from.costNanoUsd;
}

export function statesOf(found: Found, now: Moment): readonly LimitState[] {
  const { limits, budget } = found.scope;
  const states = rates.flatMap((rate, index) => (rate.limitOf(limits) === undefined ? [] : [rateState(found, index, now)]));
  if (limits.concurrency !== undefined) states.push(slotState(found, limits.concurrency));
  if (budget !== undefined) states.push(moneyState(found, now));
  return states;
}

/** Over-use becomes debt from now on; a refund may leave the TAT in the past, and the next read clamps it, so never above the burst. */
function correctRates({ scope, state }: Found, { from, to }: Change, now: Moment): void {
  for (const [index, rate] of rates.entries()) {
    const limit = rate.limitOf(scope.limits);
    const difference = rate.amountOf(to) - rate.amountOf(from);
    if (limit === undefined || difference === 0) continue;
    const tat = difference > 0 ? tatOf(state, index, now) : (state.tats[index] as number);
    state.tats[index] = tatAfter(tat, difference, limit);
  }
}

function shortOfMoney({ scope: { budget }, state }: Found, cost: number): 'for good' | 'for now' | undefined {
  if (budget?.isHard !== true) return undefined;
  const { spent, reserved } = state.money ?? { spent: 0, reserved: 0 };
  // Nothing may begin when nothing is left, whatever it costs.
  if (spent >= budget.limitNanoUsd || spent + cost > budget.limitNanoUsd) return 'for good';
  return spent + reserved + cost > budget.limitNanoUsd ? 'for now' : undefined;
}

function rateState({ scope, state }: Found, index: number, now: Moment): LimitState {
  const { dimension, limitOf } = rates[index] as Rate;
  const limit = limitOf(scope.limits) ?? 0;
  const fullInUs = tatOf(state, index, now) - now.us;
  const remaining = Math.floor(((minuteUs - fullInUs) / minuteUs) * limit + 1e-6);
  return stateOf(scope, dimension, { limit, remaining, resetMs: Math.ceil(fullInUs / 1_000) });
}

function slotState({ scope, state }: Found, limit: number): LimitState {
  return stateOf(scope, 'concurrency', { limit, remaining: limit - state.inFlight, resetMs: 0 });
}

function moneyState({ scope, state }: Found, now: Moment): LimitState {
  const { spent, reserved } = state.money ?? { spent: 0, reserved: 0 };
  const limit = scope.budget?.limitNanoUsd ?? 0;
  const resetMs = Math.max(0, (scope.budget?.period.endsAtMs ?? 0) - now.wallMs);
  return stateOf(scope, 'budget', { limit, remaining: limit - spent - reserved, resetMs });
}

function stateOf(
  { name }: LimitScope,
  dimension: LimitDimension,
  { limit, remaining, resetMs }: Pick<LimitState, 'limit' | 'remaining' | 'resetMs'>,
): LimitState {
  return { scope: name, dimension, limit, remaining: Math.max(0, remaining), resetMs };
}

function tatOf({ tats }: ScopeState, index: number, { us }: Moment): number {
  return Math.max(tats[index] as number, us);
}

function tatAfter(tatUs: number, amount: number, perMinute: number): number {
  return tatUs + (amount * minuteUs) / perMinute;
}
