import { chargesMax, type PoolCharge } from './permit-exchange.ts';
import type { FlowCharge, SharedLevel } from './pool-share.ts';

interface OpenCharge {
  readonly level: SharedLevel;
  readonly key: string;
  hasBegun: boolean;
  startedAfter: number | undefined;
  units: number;
  creditMax: number;
}

/** Flows whose charges wait to be told; beyond them, in a long time without the store, the rest is each replica's own. */
const openMax = 10_000;

/** What flows of a pool were charged here and the store has not heard of. A batch that was sent stays as it is until it is confirmed. */
export class PoolCharges {
  readonly #open = new Map<string, OpenCharge>();
  #sent: readonly PoolCharge[] = [];
  #number = 0;

  get isEmpty(): boolean {
    return this.#open.size === 0 && this.#sent.length === 0;
  }

  began(level: SharedLevel, key: string): void {
    const open = this.#obtain(level, key);
    if (open !== undefined) open.hasBegun = true;
  }

  charge({ level, key, units, creditMax }: FlowCharge): void {
    if (units === 0 && creditMax !== undefined) return;
    const open = this.#obtain(level, key);
    if (open === undefined) return;
    if (creditMax === undefined) open.startedAfter = open.units;
    else if (units < 0) open.creditMax = Math.max(open.creditMax, creditMax);
    open.units += units;
  }

  /** The next batch, or the one that was not confirmed. */
  send(): { readonly number: number; readonly charges: readonly PoolCharge[] } {
    if (this.#sent.length === 0 && this.#open.size > 0) {
      const batch = [...this.#open].slice(0, chargesMax);
      for (const [name] of batch) this.#open.delete(name);
      this.#sent = batch.map(([, charge]) => charge);
      this.#number++;
    }
    return { number: this.#number, charges: this.#sent };
  }

  confirm(): void {
    this.#sent = [];
  }

  /** What has been charged since this batch: by default the latest. */
  since(level: SharedLevel, key: string, number = this.#number): Pick<PoolCharge, 'hasBegun' | 'units'> {
    const open = this.#open.get(nameOf(level, key));
    const sent = number < this.#number ? this.#sent.find((charge) => charge.level === level && charge.key === key) : undefined;
    return {
      hasBegun: open?.hasBegun === true || sent?.hasBegun === true,
      units: (open?.units ?? 0) + (sent?.units ?? 0),
    };
  }

  #obtain(level: SharedLevel, key: string): OpenCharge | undefined {
    const name = nameOf(level, key);
    const known = this.#open.get(name);
    if (known !== undefined || this.#open.size >= openMax) return known;
    const open = { level, key, hasBegun: false, startedAfter: undefined, units: 0, creditMax: 0 };
    this.#open.set(name, open);
    return open;
  }
}

function nameOf(level: SharedLevel, key: string): string {
  return `${level}:${key}`;
}
