import { assert } from '../primitives/assert.ts';
import type { Clock } from '../primitives/clock.ts';
import type { Provider } from './provider.ts';

/** Concurrency of a deployment that configures none. */
export const concurrencyDefault = 64;

export interface DeploymentOptions {
  readonly provider: Provider;
  readonly upstreamModel: string;
  readonly concurrency: number;
  readonly clock: Clock;
}

export interface DeploymentSnapshot {
  readonly provider: string;
  readonly upstreamModel: string;
  readonly concurrency: number;
  readonly inFlight: number;
  /** It failed a moment ago and is used only when no other can serve. */
  readonly isCooling: boolean;
}

/** One model at one provider, with its slots. Shared by every public model that routes to it. */
export class Deployment {
  readonly provider: Provider;
  readonly upstreamModel: string;
  readonly concurrency: number;
  readonly #clock: Clock;
  #inFlight = 0;
  #coolUntilMs = 0;

  constructor({ provider, upstreamModel, concurrency, clock }: DeploymentOptions) {
    this.provider = provider;
    this.upstreamModel = upstreamModel;
    this.concurrency = concurrency;
    this.#clock = clock;
  }

  get hasRoom(): boolean {
    return this.#inFlight < this.concurrency;
  }

  get isCooling(): boolean {
    return this.#clock.monotonicMs() < this.#coolUntilMs;
  }

  /** Share of the slots in use, 0 to 1. */
  get load(): number {
    return this.#inFlight / this.concurrency;
  }

  /** Takes a slot; `hasRoom` must hold. */
  begin(): DeploymentSlot {
    assert(this.hasRoom, 'a deployment takes no more than its concurrency');
    this.#inFlight++;
    return new DeploymentSlot(() => {
      this.#inFlight--;
    });
  }

  /** Others go first for this long. A preference only: one tenant's 429 must not shut the model for everybody. */
  coolDown(ms: number): void {
    this.#coolUntilMs = Math.max(this.#coolUntilMs, this.#clock.monotonicMs() + ms);
  }

  snapshot(): DeploymentSnapshot {
    const { upstreamModel, concurrency, isCooling } = this;
    return { provider: this.provider.id, upstreamModel, concurrency, inFlight: this.#inFlight, isCooling };
  }
}

/** Held from the call until its answer has ended. Releasing it again does nothing. */
export class DeploymentSlot implements Disposable {
  #release: (() => void) | undefined;

  constructor(release: () => void) {
    this.#release = release;
  }

  release(): void {
    this.#release?.();
    this.#release = undefined;
  }

  [Symbol.dispose](): void {
    this.release();
  }
}
