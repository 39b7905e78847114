import { createSecretKey, hkdfSync, type KeyObject } from 'node:crypto';
import { assert } from '../primitives/assert.ts';
import type { TenantId } from '../primitives/ids.ts';
import { keyBytes, keyVersionOf, openRecord, plainFormat, type RowKey, type SealedColumn, sealRecord } from './sealed-record.ts';

/**
 * One tenant's data keys, unwrapped. Every column has a key of its own, derived by HKDF-SHA-256 (RFC 5869), so what one column's code does wrong
 * with it says nothing about another's. Wiped with `wipe`; afterwards every use throws.
 */
export class TenantKeys {
  readonly tenantId: TenantId;
  readonly loadedAtMs: number;
  /** The version that seals. */
  readonly version: number;
  readonly #hasPlainRows: boolean;
  readonly #keys: ReadonlyMap<number, Buffer>;
  /** A KeyObject takes 6 µs for a value where its bytes take 41: OpenSSL sets the key up once. It is cleared when it is collected. */
  readonly #derived = new Map<string, KeyObject>();
  #isWiped = false;

  constructor(
    tenantId: TenantId,
    keys: ReadonlyMap<number, Buffer>,
    facts: { readonly loadedAtMs: number; readonly hasPlainRows: boolean },
  ) {
    this.tenantId = tenantId;
    this.loadedAtMs = facts.loadedAtMs;
    this.#hasPlainRows = facts.hasPlainRows;
    this.#keys = keys;
    this.version = Math.max(0, ...keys.keys());
  }

  get isWiped(): boolean {
    return this.#isWiped;
  }

  /** False: these keys are older than the value, or it is no sealed value at all. */
  knows(record: Uint8Array): boolean {
    const version = keyVersionOf(record);
    return version === undefined ? this.#isPlain(record) : this.#keys.has(version);
  }

  seal(column: SealedColumn, row: RowKey, plaintext: Uint8Array): Buffer {
    const key = { version: this.version, secret: this.#keyOf(column, this.version) };
    return sealRecord(key, { tenantId: this.tenantId, column, row }, plaintext);
  }

  /** Undefined: these bytes were not sealed for this tenant, column and row. */
  open(column: SealedColumn, row: RowKey, record: Uint8Array): Buffer | undefined {
    if (this.#isPlain(record)) return Buffer.from(record.subarray(1));
    const version = keyVersionOf(record);
    if (version === undefined || !this.#keys.has(version)) return undefined;
    return openRecord({ version, secret: this.#keyOf(column, version) }, { tenantId: this.tenantId, column, row }, record);
  }

  wipe(): void {
    this.#isWiped = true;
    for (const key of this.#keys.values()) key.fill(0);
    this.#derived.clear();
  }

  #isPlain(record: Uint8Array): boolean {
    return this.#hasPlainRows && record[0] === plainFormat;
  }

  #keyOf({ table, column }: SealedColumn, version: number): KeyObject {
    // A wiped key is all zeros: sealing under it would be no secret.
    assert(!this.#isWiped, 'these keys were not wiped');
    const name = `${version} ${table}.${column}`;
    const known = this.#derived.get(name);
    if (known !== undefined) return known;
    const root = this.#keys.get(version);
    assert(root !== undefined, 'the tenant has this version');
    const bytes = Buffer.from(hkdfSync('sha256', root, 'bulkhead', `seal-1 ${table}.${column}`, keyBytes));
    const derived = createSecretKey(bytes);
    bytes.fill(0);
    this.#derived.set(name, derived);
    return derived;
  }
}
