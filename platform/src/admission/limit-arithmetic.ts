/**
 * What a reservation does to one scope. GCRA: one number per rate, the theoretical arrival time (TAT), in microseconds of the monotonic clock; admit when
 * `max(TAT, now) + n * T - now <= burst * T`. A rate of r per minute has T = 60e6 / r µs and a burst of one minute's worth.
 *
 * TAT is a double: one hour of microseconds (3.6e9) leaves 20 bits for fractions of a token, and a bucket never holds more than its debt.
 */

import { assert } from '../primitives/assert.ts';
import type { LimitPolicy } from '../tenancy/tenant.ts';
import type { Amounts, LimitDimension, LimitScope, LimitState, RateDimension, ReserveOutcome, ReserveRequest } from './limit-store.ts';

const secondUs = 1_000_000;
const minuteUs = 60 * secondUs;
/** Nobody knows when a slot or set-aside money returns; a second is short for a person and long for a robot. */
const unknownWaitMs = 1_000;
/** An idle budget is forgotten after this long, and read again when it is needed; an idle session is over. */
const moneyKeptUs = 60 * minuteUs;

/** One count that is not a number would stop a bucket for ever. */
export function assertWhole({ inputTokens, outputTokens, costNanoUsd }: Amounts): void {
  assert(isWhole(inputTokens) && isWhole(outputTokens) && isWhole(costNanoUsd), 'amounts are whole');
}

function isWhole(amount: number): boolean {
  return Number.isSafeInteger(amount) && amount >= 0;
}

export interface ScopeState {
  /** Of each of `rates`. */
  readonly tats: number[];
  inFlight: number;
  /** Whole seconds, which V8 keeps in place; -1: never. */
  usedAtS: number;
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
  money: Money | undefined;
}

export interface Moment {
  /** Of the monotonic clock. */
  readonly us: number;
  readonly wallMs: number;
}

type Refusal = Exclude<ReserveOutcome, { readonly kind: 'reserved' | 'spent' }>;
type Denial = ReserveOutcome & { readonly kind: 'denied' };

interface Change {
  readonly from: Amounts;
  readonly to: Amounts;
}

/** In the order of a state's `tats`. */
export const rateDimensions: readonly RateDimension[] = ['requests', 'tokens', 'input_tokens', 'output_tokens'];
const rateCount = rateDimensions.length;
/** Behind the rates come slots and money. */
const slotsPlace = rateCount;
const moneyPlace = rateCount + 1;

/**
 * Of a rate by its place in `rateDimensions`; undefined: there is no such limit. This and `rateAmountOf` are switches and not a table of closures: a reservation
 * reads each twenty times and more, and with the table it took three times as long.
 */
export function rateLimitOf(limits: LimitPolicy, rate: number): number | undefined {
  switch (rate) {
    case 0:
      return limits.requestsPerMinute;
    case 1:
      return limits.tokensPerMinute;
    case 2:
      return limits.inputTokensPerMinute;
    default:
      return limits.outputTokensPerMinute;
  }
}

/** How much one request takes of a rate. */
export function rateAmountOf({ inputTokens, outputTokens }: Amounts, rate: number): number {
  switch (rate) {
    case 0:
      return 1;
    case 1:
      return inputTokens + outputTokens;
    case 2:
      return inputTokens;
    default:
      return outputTokens;
  }
}

export function newState(): ScopeState {
  return { tats: [0, 0, 0, 0], inFlight: 0, usedAtS: -1, money: undefined };
}

export function isIdle({ tats, inFlight, money, usedAtS }: ScopeState, nowUs: number): boolean {
  return inFlight === 0 && tats.every((tat) => tat <= nowUs) && (money === undefined || usedAtS * secondUs + moneyKeptUs <= nowUs);
}

/** Reads only. What no wait can help, or else the refusal with the longest wait over all scopes. */
export function refusalOf(request: ReserveRequest, found: readonly Found[], now: Moment): ReserveOutcome | undefined {
  let worst: Denial | undefined;
  for (const each of found) {
    const refusal = refusalBy(each, request, now);
    if (refusal === undefined) continue;
    if (refusal.kind !== 'denied') return refusal;
    worst = longerOf(worst, refusal);
  }
  return worst;
}

function refusalBy(found: Found, { amounts, share = 1 }: ReserveRequest, now: Moment): Refusal | undefined {
  const { scope, state } = found;
  let worst: Denial | undefined;
  for (let rate = 0; rate < rateCount; rate++) {
    const limit = rateLimitOf(scope.limits, rate);
    const amount = rateAmountOf(amounts, rate);
    if (limit === undefined || amount === 0) continue;
    const part = limit * share < 1 ? 1 : share;
    if (amount > limit * part) return { kind: 'too_large', binding: rateState(found, rate, now.us), requested: amount };
    const overUs = tatAfter(tatOf(state, rate, now.us), amount, limit) - now.us - minuteUs * part;
    if (overUs > 0.5) worst = longerOf(worst, denial(rateState(found, rate, now.us), Math.ceil(overUs / 1_000)));
  }
  const slots = scope.limits.concurrency;
  if (slots !== undefined && state.inFlight >= Math.max(1, Math.floor(slots * share))) {
    worst = longerOf(worst, denial(slotState(found, slots), unknownWaitMs));
  }
  const isShort = shortOfMoney(found, amounts.costNanoUsd);
  if (isShort === 'for good') {
    return { kind: 'exhausted', binding: moneyState(found, now), used: state.money?.spent ?? 0, requested: amounts.costNanoUsd };
  }
  return isShort === 'for now' ? longerOf(worst, denial(moneyState(found, now), unknownWaitMs)) : worst;
}

function denial(binding: LimitState, retryAfterMs: number): Denial {
  return { kind: 'denied', binding, used: binding.limit - binding.remaining, retryAfterMs };
}

/** The first of two with the same wait. */
function longerOf(worst: Denial | undefined, next: Denial): Denial {
  return worst === undefined || next.retryAfterMs > worst.retryAfterMs ? next : worst;
}

/** Counts the request in. */
export function take(found: Found, amounts: Amounts, nowUs: number): void {
  const { scope, state } = found;
  for (let rate = 0; rate < rateCount; rate++) {
    const limit = rateLimitOf(scope.limits, rate);
    if (limit !== undefined) state.tats[rate] = tatAfter(tatOf(state, rate, nowUs), rateAmountOf(amounts, rate), limit);
  }
  state.inFlight++;
  state.usedAtS = Math.floor(nowUs / secondUs);
  found.money = scope.budget && state.money;
  if (found.money !== undefined) found.money.reserved += amounts.costNanoUsd;
}

/** Counts it out, and what it really used in. */
export function release(found: Found, change: Change, nowUs: number): void {
  found.state.inFlight--;
  found.state.usedAtS = Math.floor(nowUs / secondUs);
  correctRates(found, change, nowUs);
  if (found.money === undefined) return;
  found.money.reserved -= change.from.costNanoUsd;
  found.money.spent += change.to.costNanoUsd;
}

/** After it was counted out at `from`. */
export function correct(found: Found, change: Change, nowUs: number): void {
  correctRates(found, change, nowUs);
  const { money } = found.state;
  if (money !== undefined && money.periodId === found.scope.budget?.period.id)
    money.spent += change.to.costNanoUsd - change.from.costNanoUsd;
}

/** Of each dimension the scope with the least left, the outermost of several. */
export function tightestStates(found: readonly Found[], now: Moment): readonly LimitState[] {
  const states: LimitState[] = [];
  for (let place = 0; place <= moneyPlace; place++) {
    let tightest: Found | undefined;
    let least = Number.POSITIVE_INFINITY;
    for (const each of found) {
      const left = leftOf(each, place, now.us);
      if (left >= least) continue;
      least = left;
      tightest = each;
    }
    if (tightest !== undefined) states.push(stateAt(tightest, place, now));
  }
  return states;
}

/** Infinity where there is no such limit; below 0 where there is debt. */
function leftOf(found: Found, place: number, nowUs: number): number {
  if (place === slotsPlace) return slotsLeft(found);
  return place === moneyPlace ? moneyLeft(found) : rateLeft(found, place, nowUs);
}

function stateAt(found: Found, place: number, now: Moment): LimitState {
  if (place === slotsPlace) return slotState(found, found.scope.limits.concurrency ?? 0);
  return place === moneyPlace ? moneyState(found, now) : rateState(found, place, now.us);
}

/** Over-use becomes debt from now on; a refund may leave the TAT in the past, and the next read clamps it, so never above the burst. */
function correctRates({ scope, state }: Found, { from, to }: Change, nowUs: number): void {
  for (let rate = 0; rate < rateCount; rate++) {
    const limit = rateLimitOf(scope.limits, rate);
    const difference = rateAmountOf(to, rate) - rateAmountOf(from, rate);
    if (limit === undefined || difference === 0) continue;
    const tat = difference > 0 ? tatOf(state, rate, nowUs) : (state.tats[rate] as number);
    state.tats[rate] = tatAfter(tat, difference, limit);
  }
}

function shortOfMoney({ scope: { budget }, state }: Found, cost: number): 'for good' | 'for now' | undefined {
  if (budget?.isHard !== true) return undefined;
  const { spent, reserved } = state.money ?? { spent: 0, reserved: 0 };
  // Nothing may begin when nothing is left, whatever it costs.
  if (spent >= budget.limitNanoUsd || spent + cost > budget.limitNanoUsd) return 'for good';
  return spent + reserved + cost > budget.limitNanoUsd ? 'for now' : undefined;
}

function rateState(found: Found, rate: number, nowUs: number): LimitState {
  const { scope, state } = found;
  const resetMs = Math.ceil((tatOf(state, rate, nowUs) - nowUs) / 1_000);
  const limit = rateLimitOf(scope.limits, rate) ?? 0;
  return stateOf(scope, rateDimensions[rate] as RateDimension, { limit, remaining: rateLeft(found, rate, nowUs), resetMs });
}

function rateLeft({ scope, state }: Found, rate: number, nowUs: number): number {
  const limit = rateLimitOf(scope.limits, rate);
  if (limit === undefined) return Number.POSITIVE_INFINITY;
  return Math.floor(((minuteUs + nowUs - tatOf(state, rate, nowUs)) / minuteUs) * limit + 1e-6);
}

function slotState(found: Found, limit: number): LimitState {
  return stateOf(found.scope, 'concurrency', { limit, remaining: slotsLeft(found), resetMs: 0 });
}

function slotsLeft({ scope, state }: Found): number {
  return (scope.limits.concurrency ?? Number.POSITIVE_INFINITY) - state.inFlight;
}

function moneyState(found: Found, now: Moment): LimitState {
  const { budget } = found.scope;
  const resetMs = Math.max(0, (budget?.period.endsAtMs ?? 0) - now.wallMs);
  return stateOf(found.scope, 'budget', { limit: budget?.limitNanoUsd ?? 0, remaining: moneyLeft(found), resetMs });
}

function moneyLeft({ scope, state }: Found): number {
  const { spent, reserved } = state.money ?? { spent: 0, reserved: 0 };
  return (scope.budget?.limitNanoUsd ?? Number.POSITIVE_INFINITY) - spent - reserved;
}

function stateOf(
  { name }: LimitScope,
  dimension: LimitDimension,
  { limit, remaining, resetMs }: Pick<LimitState, 'limit' | 'remaining' | 'resetMs'>,
): LimitState {
  return { scope: name, dimension, limit, remaining: Math.max(0, remaining), resetMs };
}

function tatOf({ tats }: ScopeState, rate: number, nowUs: number): number {
  return Math.max(tats[rate] as number, nowUs);
}

function tatAfter(tatUs: number, amount: number, perMinute: number): number {
  return tatUs + (amount * minuteUs) / perMinute;
}
