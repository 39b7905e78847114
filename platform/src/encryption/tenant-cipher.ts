/**
 * Seals and opens one tenant's values: bound to the Principal that it was made for, no method takes a tenant. What does not open was not this
 * tenant's value of this row: the caller hears a fixed text, the operator an alarm, and nobody hears content.
 */
import { BulkheadError } from '../errors/bulkhead-error.ts';
import { assert } from '../primitives/assert.ts';
import type { TenantId } from '../primitives/ids.ts';
import type { RowKey, SealedColumn } from './sealed-record.ts';
import type { TenantKeys } from './tenant-keys.ts';

/** Seals at most as many values as it was asked for. Belongs to one transaction: it refuses to seal under keys that have grown old. */
export interface Sealer {
  /** The version that it seals under. */
  readonly version: number;
  seal(column: SealedColumn, row: RowKey, plaintext: Uint8Array): Buffer;
}

export interface SealedValue {
  readonly row: RowKey;
  readonly record: Uint8Array;
}

/** A stored value that does not open where it stands. Identifiers only. */
export interface IsolationAlarm {
  readonly tenantId: TenantId;
  readonly column: SealedColumn;
  readonly row: RowKey;
}

/** What a cipher asks of the ring that holds the keys. */
export interface KeyHolder {
  keys(): Promise<TenantKeys>;
  /** Read anew: another process may have made a version since. */
  newerKeys(than: TenantKeys): Promise<TenantKeys>;
  /** Keys of which `messages` more values are counted. */
  keysFor(messages: number): Promise<TenantKeys>;
  isTooOldToSeal(keys: TenantKeys): boolean;
  forget(): void;
  alarm(alarm: IsolationAlarm): void;
}

export class TenantCipher {
  readonly #holder: KeyHolder;

  constructor(holder: KeyHolder) {
    this.#holder = holder;
  }

  /**
   * Awaited before the transaction that writes: it may have to ask a key service. The first of a tenant makes its data key. Throws `key_unavailable`.
   */
  async sealer(messages: number): Promise<Sealer> {
    const keys = await this.#holder.keysFor(messages);
    let left = messages;
    return {
      version: keys.version,
      seal: (column, row, plaintext) => {
        assert(left-- > 0, 'every sealed value was counted before');
        if (keys.isWiped || this.#holder.isTooOldToSeal(keys)) throw keysGone();
        return keys.seal(column, row, plaintext);
      },
    };
  }

  /** Has the keys at hand, so that opening soon after waits for nothing. */
  async ready(): Promise<void> {
    await this.#holder.keys();
  }

  /** Throws `sealed_data_unreadable` and raises the alarm when it is not this tenant's value of this row; `key_unavailable`. */
  async open(column: SealedColumn, row: RowKey, record: Uint8Array): Promise<Buffer> {
    const [plaintext] = await this.openAll(column, [{ row, record }]);
    assert(plaintext !== undefined, 'every value gives one');
    return plaintext;
  }

  /** The same for several, in their order; one that does not open fails all. */
  async openAll(column: SealedColumn, values: readonly SealedValue[]): Promise<readonly Buffer[]> {
    if (values.length === 0) return [];
    let keys = await this.#holder.keys();
    if (!values.every(({ record }) => keys.knows(record))) keys = await this.#holder.newerKeys(keys);
    return values.map(({ row, record }) => this.#open(keys, { column, row, record }));
  }

  /** Reads the keys anew: a version was made or destroyed. */
  async renew(): Promise<void> {
    await this.#holder.newerKeys(await this.#holder.keys());
  }

  /** Wipes this tenant's keys from the memory of this process. */
  forget(): void {
    this.#holder.forget();
  }

  #open(keys: TenantKeys, { column, row, record }: SealedValue & { readonly column: SealedColumn }): Buffer {
    if (keys.isWiped) throw keysGone();
    const plaintext = keys.open(column, row, record);
    if (plaintext !== undefined) return plaintext;
    this.#holder.alarm({ tenantId: keys.tenantId, column, row });
    throw unreadable();
  }
}

export function keysGone(): BulkheadError {
  return new BulkheadError('key_unavailable', 'The keys of stored content are not available right now; try again.', {
    retryAfterMs: 1_000,
  });
}

export function unreadable(): BulkheadError {
  return new BulkheadError('sealed_data_unreadable', 'Stored content could not be read; the operator has been told.');
}
