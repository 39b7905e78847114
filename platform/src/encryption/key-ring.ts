/**
 * The tenants' data keys, unwrapped, in this process: loaded on first use, kept at most `ttlMs`, least recently used out first, wiped when they go.
 * Between loads nothing asks the key service, so it may be away for as long.
 *
 * A key that seals may be old by `ttlMs` plus `sealGraceMs`; a retired version is destroyed only after longer than that (`resealer.ts`), so nobody
 * seals under a key that is gone.
 */
import { createHash } from 'node:crypto';
import { BulkheadError } from '../errors/bulkhead-error.ts';
import { assert } from '../primitives/assert.ts';
import type { Clock } from '../primitives/clock.ts';
import type { TenantId } from '../primitives/ids.ts';
import type { Logger } from '../telemetry/logger.ts';
import { Principal } from '../tenancy/principal.ts';
import { type DataKeyShelf, newDataKey, unwrapDataKey, type WrappedDataKey, wrapDataKey } from './data-key.ts';
import type { MasterKeys } from './master-key.ts';
import { lengthPrefixed, type RowKey } from './sealed-record.ts';
import { type IsolationAlarm, keysGone, TenantCipher, unreadable } from './tenant-cipher.ts';
import { TenantKeys } from './tenant-keys.ts';

export interface KeyRingParts {
  readonly masters: MasterKeys;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly ttlMs: number;
  readonly entriesMax: number;
  /** Counts the alarm; the log is written here. */
  readonly onAlarm?: (alarm: { readonly tenantId: TenantId; readonly column: string }) => void;
  /** For tests; see `messagesMaxDefault`. */
  readonly messagesMax?: number;
}

/** Longest that a transaction may seal under keys whose time is up. */
export const sealGraceMs = 600_000;
/** Random 96-bit nonces: after 2^32 values under one key a repeat has a chance of 2^-33 (NIST SP 800-38D 8.3). A new version comes long before. */
const messagesMaxDefault = 2 ** 30;
/** Values counted at once, so that not every write counts in the database. */
const messagesBlock = 4_096;

interface Entry {
  readonly loading: Promise<TenantKeys>;
  /** Undefined until loaded. */
  keys?: TenantKeys;
}

interface Budget {
  version: number;
  left: number;
}

export class KeyRing implements Disposable {
  readonly #parts: KeyRingParts;
  readonly #entries = new Map<TenantId, Entry>();
  readonly #budgets = new Map<TenantId, Budget>();
  /** Keys that were replaced and may still be sealing somewhere; wiped when too old for that. */
  #leaving: TenantKeys[] = [];
  readonly #sweeper: NodeJS.Timeout;

  constructor(parts: KeyRingParts) {
    this.#parts = parts;
    this.#sweeper = setInterval(() => this.#sweep(), Math.max(1_000, parts.ttlMs / 4)).unref();
  }

  get masters(): MasterKeys {
    return this.#parts.masters;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** `shelf` reads and writes as this principal. */
  cipherFor(principal: Principal, shelf: DataKeyShelf): TenantCipher {
    assert(Principal.is(principal), 'a cipher needs a minted principal');
    const tenant = { tenantId: principal.tenantId, shelf };
    return new TenantCipher({
      keys: () => this.#keys(tenant),
      newerKeys: (than) => this.#newerKeys(tenant, than),
      keysFor: (messages) => this.#keysFor(tenant, messages),
      isTooOldToSeal: (keys) => this.#age(keys) > this.#parts.ttlMs + sealGraceMs,
      forget: () => this.#forget(tenant.tenantId),
      alarm: (alarm) => this.#alarm(alarm),
    });
  }

  /** Wipes every key. */
  [Symbol.dispose](): void {
    clearInterval(this.#sweeper);
    for (const tenantId of this.#entries.keys()) this.#forget(tenantId);
    for (const keys of this.#leaving) keys.wipe();
    this.#leaving = [];
  }

  async #keys(tenant: Tenant): Promise<TenantKeys> {
    const entry = this.#entries.get(tenant.tenantId);
    if (entry === undefined || (entry.keys !== undefined && this.#age(entry.keys) >= this.#parts.ttlMs)) return this.#load(tenant);
    // The end of a Map is its most recently used.
    this.#entries.delete(tenant.tenantId);
    this.#entries.set(tenant.tenantId, entry);
    return entry.loading;
  }

  #newerKeys(tenant: Tenant, than: TenantKeys): Promise<TenantKeys> {
    const entry = this.#entries.get(tenant.tenantId);
    return entry === undefined || entry.keys === than ? this.#load(tenant) : entry.loading;
  }

  /** One load at a time for a tenant: whoever comes meanwhile waits for the same. */
  #load(tenant: Tenant): Promise<TenantKeys> {
    this.#retire(tenant.tenantId);
    const loading = this.#unwrapAll(tenant);
    const entry: Entry = { loading };
    this.#entries.set(tenant.tenantId, entry);
    loading.then(
      (keys) => {
        entry.keys = keys;
        if (this.#entries.get(tenant.tenantId) !== entry) this.#leaving.push(keys);
      },
      () => {
        if (this.#entries.get(tenant.tenantId) === entry) this.#entries.delete(tenant.tenantId);
      },
    );
    this.#sweep();
    return loading;
  }

  async #unwrapAll(tenant: Tenant): Promise<TenantKeys> {
    const loadedAtMs = this.#parts.clock.monotonicMs();
    const stored = await tenant.shelf.list();
    const keys = await Promise.all(stored.keys.map(async (key) => [key.version, await this.#unwrap(tenant.tenantId, key)] as const));
    return new TenantKeys(tenant.tenantId, new Map(keys), { loadedAtMs, hasPlainRows: stored.hasPlainRows });
  }

  async #unwrap(tenantId: TenantId, key: WrappedDataKey): Promise<Buffer> {
    const master = this.#parts.masters.byId.get(key.masterKeyId);
    if (master === undefined) {
      const reason = `wrapped by ${key.masterKeyId}, which is not configured`;
      this.#parts.logger.error({ component: 'at-rest', tenantId, code: 'key_unavailable', reason }, 'a data key cannot be unwrapped');
      throw keysGone();
    }
    const plain = await unwrapDataKey(master, key.wrapped, { tenantId, version: key.version });
    if (plain !== undefined) return plain;
    this.#alarm({ tenantId, column: dataKeyColumn, row: [key.version] });
    throw unreadable();
  }

  async #keysFor(tenant: Tenant, messages: number): Promise<TenantKeys> {
    const { messagesMax = messagesMaxDefault } = this.#parts;
    const block = Math.max(messages, Math.min(messagesBlock, messagesMax));
    for (let attempt = 0; attempt < attemptsMax; attempt++) {
      const keys = await this.#keys(tenant);
      const budget = this.#budgets.get(tenant.tenantId);
      if (budget !== undefined && budget.version === keys.version && budget.left >= messages) {
        budget.left -= messages;
        return keys;
      }
      if (keys.version > 0 && (await tenant.shelf.reserve(keys.version, block, messagesMax))) {
        this.#budgets.set(tenant.tenantId, { version: keys.version, left: block - messages });
        return keys;
      }
      const version = keys.version + 1;
      if (await this.#add(tenant, version, block)) this.#budgets.set(tenant.tenantId, { version, left: block });
      await this.#newerKeys(tenant, keys);
    }
    throw new BulkheadError('key_unavailable', 'The keys of stored content are changing; try again.', { retryAfterMs: 1_000 });
  }

  /** Under the current master key. False: another process made this version. */
  async #add({ tenantId, shelf }: Tenant, version: number, messages: number): Promise<boolean> {
    const { current } = this.#parts.masters;
    const key = newDataKey();
    const wrapped = await wrapDataKey(current, key, { tenantId, version });
    key.fill(0);
    return shelf.add({ version, masterKeyId: current.id, wrapped, messages });
  }

  /** Out of the cache; whoever seals with them now may finish. */
  #retire(tenantId: TenantId): void {
    const keys = this.#entries.get(tenantId)?.keys;
    this.#entries.delete(tenantId);
    if (keys !== undefined) this.#leaving.push(keys);
  }

  #forget(tenantId: TenantId): void {
    this.#entries.get(tenantId)?.keys?.wipe();
    this.#entries.delete(tenantId);
    this.#budgets.delete(tenantId);
    for (const keys of this.#leaving) if (keys.tenantId === tenantId) keys.wipe();
  }

  /** What nobody asked for lately is wiped too. */
  #sweep(): void {
    const { entriesMax, ttlMs } = this.#parts;
    for (const [tenantId, { keys }] of this.#entries) {
      const isOver = this.#entries.size > entriesMax || (keys !== undefined && this.#age(keys) >= ttlMs);
      if (!isOver) continue;
      this.#retire(tenantId);
      this.#budgets.delete(tenantId);
    }
    const isDue = (keys: TenantKeys, index: number, all: readonly TenantKeys[]) =>
      this.#age(keys) > ttlMs + sealGraceMs || index < all.length - entriesMax;
    for (const keys of this.#leaving.filter(isDue)) keys.wipe();
    this.#leaving = this.#leaving.filter((keys) => !keys.isWiped);
  }

  #age(keys: TenantKeys): number {
    return this.#parts.clock.monotonicMs() - keys.loadedAtMs;
  }

  #alarm({ tenantId, column, row }: IsolationAlarm): void {
    const name = `${column.table}.${column.column}`;
    const named = column.rowKeyIsTheClients ? `sha256 ${digestOf(row)}` : row.join(' ');
    const fields = { component: 'at-rest', tenantId, code: 'isolation_alarm', reason: `${name} ${named}` };
    this.#parts.logger.error(fields, 'stored content does not open under its tenant');
    this.#parts.onAlarm?.({ tenantId, column: name });
  }
}

function digestOf(row: RowKey): string {
  return createHash('sha256')
    .update(lengthPrefixed(row.map(String)))
    .digest('hex')
    .slice(0, 16);
}

interface Tenant {
  readonly tenantId: TenantId;
  readonly shelf: DataKeyShelf;
}

/** A wrapped key is itself bound to its row. */
const dataKeyColumn = { table: 'data_key', column: 'wrapped', rowKey: ['version'] };
/** No key, a full one, and another process that makes one at the same time. */
const attemptsMax = 4;
