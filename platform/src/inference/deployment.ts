/**
 * One model at one provider: its slots, and all that is known of how much it takes. Shared by every public model that routes to it.
 *
 * How many calls it takes at once is the least of: the operator's ceiling, the adaptive limit, the ramp after a pause (a quarter of the limit more each
 * second: providers answer a sudden return with new refusals); nothing while it is paused, its circuit is open, its quota is used up, or an operator says so.
 */
import { assert } from '../primitives/assert.ts';
import type { Clock } from '../primitives/clock.ts';
import type { Random } from '../primitives/random.ts';
import { Circuit } from './circuit.ts';
import { ConcurrencyLimit } from './concurrency-limit.ts';
import { LatencyWatch } from './latency-watch.ts';
import { type Provider, type QuotaReport, UpstreamRefusal } from './provider.ts';
import { type CallSize, type ConfiguredRates, QuotaMirror, type QuotaSnapshot } from './quota-mirror.ts';

/** Concurrency of a deployment that configures none. */
export const concurrencyDefault = 64;

const rampShareASecond = 0.25;
const rampStepMs = 250;
/** A refusal for rate that names no time: doubled each time until an answer comes. */
const pauseMsMin = 1_000;
const pauseMsMax = 60_000;
/** Those who were told the same time must not all come back at it. */
const pauseJitter = 0.1;
/** An account without money is asked again so often: the operator may have paid. */
const accountRetryMs = 60_000;

export interface DeploymentOptions {
  readonly provider: Provider;
  readonly upstreamModel: string;
  readonly limits: ConfiguredRates & { readonly concurrency?: number | undefined };
  readonly clock: Clock;
  readonly random: Random;
}

/** What an operator may say: `auto` leaves it to what is observed, `open` ignores pauses and the circuit, `closed` sends nothing. */
export type DeploymentOverride = 'auto' | 'open' | 'closed';
export type DeploymentState = 'serving' | 'ramping' | 'paused' | 'no_quota' | 'broken' | 'probing' | 'closed';

export interface DeploymentSnapshot {
  /** Provider and model, as in `openai/gpt-4o-mini`. */
  readonly id: string;
  readonly provider: string;
  readonly upstreamModel: string;
  readonly state: DeploymentState;
  readonly override: DeploymentOverride;
  /** Calls at once: configured, adaptive, and now. */
  readonly concurrency: number;
  readonly adaptiveLimit: number;
  readonly permits: number;
  readonly inFlight: number;
  /** Until it is asked again; 0 while it serves. */
  readonly resumesInMs: number;
  readonly quota: Readonly<Record<string, QuotaSnapshot>>;
  readonly answers: number;
  readonly failures: number;
  /** Refusals for load: too often, too many at once, overloaded, out of money. */
  readonly refusals: number;
}

/** What an answer told. */
export interface Answered {
  readonly quota?: QuotaReport | undefined;
  /** Of a stream. */
  readonly firstEventMs?: number | undefined;
}

export class Deployment {
  readonly id: string;
  readonly provider: Provider;
  readonly upstreamModel: string;
  readonly #limit: ConcurrencyLimit;
  readonly #latency = new LatencyWatch();
  readonly #circuit = new Circuit();
  readonly #quota: QuotaMirror;
  readonly #clock: Clock;
  readonly #random: Random;
  #inFlight = 0;
  #override: DeploymentOverride = 'auto';
  #pausedUntilMs = Number.NEGATIVE_INFINITY;
  #heldUntilMs = Number.NEGATIVE_INFINITY;
  #rampFromMs = Number.NEGATIVE_INFINITY;
  #refusalsOnEnd = 0;
  #answers = 0;
  #failures = 0;
  #refusals = 0;
  /** Something changed that may change `permits`, or a slot came free. */
  onChange: () => void = () => {};

  constructor({ provider, upstreamModel, limits, clock, random }: DeploymentOptions) {
    this.id = `${provider.id}/${upstreamModel}`;
    this.provider = provider;
    this.upstreamModel = upstreamModel;
    this.#limit = new ConcurrencyLimit(limits.concurrency ?? concurrencyDefault);
    this.#quota = new QuotaMirror(limits);
    this.#clock = clock;
    this.#random = random;
  }

  /** Calls it takes at once, now. */
  get permits(): number {
    switch (this.state) {
      case 'serving':
        return this.#limit.value;
      case 'ramping':
        return this.#rampedLimit();
      case 'probing':
        return 1;
      default:
        return 0;
    }
  }

  /** Calls the account takes at once, whoever sends them: what only this process sees or wants (a broken connection, a quota that is held, an operator's word) is left out. */
  get accountPermits(): number {
    return this.#clock.monotonicMs() < this.#pausedUntilMs ? 0 : this.#rampedLimit();
  }

  get hasRoom(): boolean {
    return this.#inFlight < this.permits;
  }

  /** Share of what it takes that is in use, 0 to 1. */
  get load(): number {
    return this.#inFlight / Math.max(1, this.permits);
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  get state(): DeploymentState {
    if (this.#override === 'closed') return 'closed';
    if (this.#override === 'open') return 'serving';
    const nowMs = this.#clock.monotonicMs();
    if (nowMs < this.#pausedUntilMs) return 'paused';
    const circuit = this.#circuit.state(nowMs);
    if (circuit === 'open') return 'broken';
    // Before a probe: a call that finds no quota looks again at once, and must find no room then.
    if (nowMs < this.#heldUntilMs) return 'no_quota';
    if (circuit === 'half-open') return 'probing';
    return this.#rampedLimit() < this.#limit.value ? 'ramping' : 'serving';
  }

  /** Monotonic milliseconds at which time alone changes what it takes; undefined: only a call or the operator does. */
  get changesAtMs(): number | undefined {
    switch (this.state) {
      case 'paused':
        return this.#pausedUntilMs;
      case 'broken':
        return this.#circuit.retryAtMs;
      case 'no_quota':
        return this.#heldUntilMs;
      case 'ramping':
        return this.#clock.monotonicMs() + rampStepMs;
      default:
        return undefined;
    }
  }

  /** Tokens of a minute beyond which no call is ever sent; undefined when this call can be. */
  limitExceeded(size: CallSize): number | undefined {
    return this.#quota.limitExceeded(size);
  }

  /**
   * Whether our account has room for the call now. When not, nothing is sent until it has: a smaller call that came later would pass
   * the larger one again and again.
   */
  reserves(size: CallSize): boolean {
    const nowMs = this.#clock.monotonicMs();
    const waitMs = this.#override === 'open' ? 0 : this.#quota.waitMs(size, nowMs);
    if (waitMs === 0) return true;
    this.#heldUntilMs = nowMs + waitMs;
    this.onChange();
    return false;
  }

  /** Takes a slot; `hasRoom` must hold. `hasWaited`: the pool was full, although its calls may be those of other replicas. */
  begin(size: CallSize, hasWaited = false): DeploymentSlot {
    assert(this.hasRoom, 'a deployment takes no more than its concurrency');
    const wasFull = hasWaited || this.#inFlight + 1 >= this.#limit.value;
    this.#inFlight++;
    this.#quota.take(size, this.#clock.monotonicMs());
    return new DeploymentSlot({ wasFull, size }, ({ used, wasSent }) => {
      this.#inFlight--;
      if (!wasSent) this.#quota.giveBack(size, this.#clock.monotonicMs());
      else if (used !== undefined) this.#quota.settle(size, used, this.#clock.monotonicMs());
      this.onChange();
    });
  }

  /** It answered, or began to: then `firstEventMs` is set. */
  answered(slot: DeploymentSlot, { quota, firstEventMs }: Answered): void {
    const nowMs = this.#clock.monotonicMs();
    this.#answers++;
    this.#refusalsOnEnd = 0;
    if (firstEventMs === undefined) this.#circuit.answered();
    else this.#circuit.began();
    this.#limit.answered(slot.wasFull);
    if (firstEventMs !== undefined && this.#inFlight * 2 >= this.#limit.value) {
      if (this.#latency.observe(firstEventMs, slot.size.inputTokens, nowMs)) this.#limit.slowed(nowMs);
    }
    if (quota !== undefined) this.#quota.learn(quota, nowMs);
    this.onChange();
  }

  /** It refused a request as wrong: no answer, and no failure of its own. */
  reached(): void {
    this.#circuit.answered();
    this.onChange();
  }

  /** A stream of it came to its end. */
  completed(): void {
    this.#circuit.answered();
  }

  /** A stream of it has broken in the middle. `source`: an opaque name of who asked. */
  broke(error: unknown, source: string): void {
    this.#failed(error, (nowMs) => this.#circuit.broke(nowMs, source));
  }

  /** It failed before its first byte. */
  failed(error: unknown, source: string): void {
    this.#failed(error, (nowMs) => this.#circuit.failed(nowMs, source));
  }

  override(override: DeploymentOverride): void {
    this.#override = override;
    if (override === 'auto') {
      this.#pausedUntilMs = Number.NEGATIVE_INFINITY;
      this.#heldUntilMs = Number.NEGATIVE_INFINITY;
      this.#circuit.answered();
    }
    this.onChange();
  }

  snapshot(): DeploymentSnapshot {
    const { id, upstreamModel, state, permits } = this;
    const nowMs = this.#clock.monotonicMs();
    const isWaiting = state === 'paused' || state === 'broken' || state === 'no_quota';
    return {
      id,
      provider: this.provider.id,
      upstreamModel,
      state,
      override: this.#override,
      concurrency: this.#limit.ceiling,
      adaptiveLimit: this.#limit.value,
      permits,
      inFlight: this.#inFlight,
      resumesInMs: isWaiting ? Math.max(0, Math.ceil((this.changesAtMs ?? nowMs) - nowMs)) : 0,
      quota: this.#quota.snapshot(nowMs),
      answers: this.#answers,
      failures: this.#failures,
      refusals: this.#refusals,
    };
  }

  #failed(error: unknown, count: (nowMs: number) => void): void {
    const nowMs = this.#clock.monotonicMs();
    if (error instanceof UpstreamRefusal) this.#refused(error, nowMs);
    else {
      this.#failures++;
      count(nowMs);
    }
    this.onChange();
  }

  #refused({ limit, retryAfterMs, quota }: UpstreamRefusal, nowMs: number): void {
    this.#refusals++;
    if (quota !== undefined) this.#quota.learn(quota, nowMs);
    if (limit === 'account') {
      this.#circuit.open(nowMs, accountRetryMs);
      return;
    }
    this.#limit.refused(nowMs);
    if (limit === 'concurrency') return;
    const ownMs = Math.min(pauseMsMax, pauseMsMin * 2 ** Math.min(this.#refusalsOnEnd, 6));
    this.#refusalsOnEnd++;
    const pauseMs = Math.min(pauseMsMax, retryAfterMs ?? ownMs) * (1 + pauseJitter * this.#random.next());
    this.#pausedUntilMs = Math.max(this.#pausedUntilMs, nowMs + pauseMs);
    this.#rampFromMs = this.#pausedUntilMs;
  }

  #rampedLimit(): number {
    const elapsedMs = this.#clock.monotonicMs() - this.#rampFromMs;
    const share = Math.min(1, rampShareASecond * (1 + Math.max(0, elapsedMs) / 1_000));
    return Math.max(1, Math.floor(this.#limit.value * share));
  }
}

/** Held from the call until its answer has ended. Releasing it again does nothing. */
export class DeploymentSlot {
  /** It was the last there was: if it is answered, more might fit. */
  readonly wasFull: boolean;
  readonly size: CallSize;
  /** What the call has really taken, once it is known. */
  used: CallSize | undefined = undefined;
  /** False: the call took nothing of the provider's limits. */
  wasSent = true;
  #release: ((slot: DeploymentSlot) => void) | undefined;

  constructor({ wasFull, size }: { readonly wasFull: boolean; readonly size: CallSize }, release: (slot: DeploymentSlot) => void) {
    this.wasFull = wasFull;
    this.size = size;
    this.#release = release;
  }

  release(): void {
    const release = this.#release;
    this.#release = undefined;
    release?.(this);
  }
}
