import { afterEach, describe, expect, it } from 'vitest';
import { ManualClock } from '../primitives/clock.ts';
import { parseTenantId, type TenantId } from '../primitives/ids.ts';
import type { LogFields, Logger } from '../telemetry/logger.ts';
import { silentLogger } from '../telemetry/logger.ts';
import { mintPrincipal } from '../tenancy/mint-principal.ts';
import type { DataKeyShelf, StoredDataKeys, WrappedDataKey } from './data-key.ts';
import { KeyRing, type KeyRingParts, sealGraceMs } from './key-ring.ts';
import { localMasterKey } from './local-master-key.ts';
import { type MasterKey, masterKeys } from './master-key.ts';

const column = { table: 'note', column: 'body', rowKey: ['id'] };
const ttlMs = 60_000;
const text = Buffer.from('what was said');
const principalOf = (tenant: string) =>
  mintPrincipal({ tenantId: parseTenantId(tenant) as TenantId, kind: 'api-key', user: 'tester', keyId: 'key_test' });

/** A shelf in memory that counts what is asked of it. */
class Shelf implements DataKeyShelf {
  rows: WrappedDataKey[] = [];
  lists = 0;
  reservations = 0;
  hasPlainRows = false;

  async list(): Promise<StoredDataKeys> {
    this.lists++;
    return { keys: [...this.rows], hasPlainRows: this.hasPlainRows };
  }

  async add(key: WrappedDataKey): Promise<boolean> {
    if (this.rows.some(({ version }) => version === key.version)) return false;
    this.rows.push(key);
    return true;
  }

  async reserve(version: number, messages: number, messagesMax: number): Promise<boolean> {
    this.reservations++;
    const row = this.rows.find((key) => key.version === version);
    if (row === undefined || row.messages + messages > messagesMax) return false;
    this.rows = this.rows.map((key) => (key === row ? { ...key, messages: key.messages + messages } : key));
    return true;
  }
}

/** A master key that can be away, and counts what it is asked. */
function watchedMaster(): MasterKey & { isAway: boolean; unwraps: number } {
  const inner = localMasterKey(Buffer.alloc(32, 1));
  const master = {
    id: inner.id,
    isAway: false,
    unwraps: 0,
    wrap: (secret: Uint8Array, context: Uint8Array) => inner.wrap(secret, context),
    async unwrap(wrapped: Uint8Array, context: Uint8Array) {
      master.unwraps++;
      if (master.isAway) throw new Error('away');
      return inner.unwrap(wrapped, context);
    },
  };
  return master;
}

const rings: KeyRing[] = [];
afterEach(() => {
  for (const ring of rings.splice(0)) ring[Symbol.dispose]();
});

function openWorld(parts: Partial<KeyRingParts> = {}) {
  const clock = new ManualClock();
  const master = watchedMaster();
  const alarms: string[] = [];
  const ring = new KeyRing({
    masters: masterKeys(master),
    clock,
    logger: silentLogger,
    ttlMs,
    entriesMax: 100,
    onAlarm: ({ tenantId, column: name }) => alarms.push(`${tenantId} ${name}`),
    ...parts,
  });
  rings.push(ring);
  const shelf = new Shelf();
  return { clock, master, ring, shelf, alarms, cipher: ring.cipherFor(principalOf('acme'), shelf) };
}

describe('the keys of a tenant', () => {
  it('are made by the first value that is sealed and open it afterwards', async () => {
    const { cipher, shelf } = openWorld();
    const record = (await cipher.sealer(1)).seal(column, ['a'], text);
    expect((await cipher.open(column, ['a'], record)).equals(text)).toBe(true);
    expect(shelf.rows).toHaveLength(1);
    expect(record.includes(text)).toBe(false);
  });

  it('are one key, however many make the first at the same time in several processes', async () => {
    const shelf = new Shelf();
    const ciphers = Array.from({ length: 5 }, () => openWorld().ring.cipherFor(principalOf('acme'), shelf));
    const records = await Promise.all(
      ciphers.flatMap((cipher) => [cipher, cipher]).map(async (cipher) => (await cipher.sealer(1)).seal(column, ['a'], text)),
    );
    expect(shelf.rows).toHaveLength(1);
    for (const record of records) expect((await ciphers[0]?.open(column, ['a'], record))?.equals(text)).toBe(true);
  });

  it('are asked of the master key once for as long as they may be kept, by however many at a time', async () => {
    const { cipher, clock, master } = openWorld();
    const record = (await cipher.sealer(1)).seal(column, ['a'], text);
    const before = master.unwraps;
    await Promise.all(Array.from({ length: 20 }, () => cipher.open(column, ['a'], record)));
    clock.advance(ttlMs - 1);
    await cipher.open(column, ['a'], record);
    expect(master.unwraps).toBe(before);
    clock.advance(1);
    await Promise.all(Array.from({ length: 20 }, () => cipher.open(column, ['a'], record)));
    expect(master.unwraps).toBe(before + 1);
  });

  it('work while the key service is away until their time is up, and again when it is back', async () => {
    const { cipher, clock, master } = openWorld();
    const record = (await cipher.sealer(1)).seal(column, ['a'], text);
    master.isAway = true;
    clock.advance(ttlMs - 1);
    expect((await cipher.open(column, ['a'], record)).equals(text)).toBe(true);
    clock.advance(1);
    await expect(cipher.open(column, ['a'], record)).rejects.toThrow('away');
    master.isAway = false;
    expect((await cipher.open(column, ['a'], record)).equals(text)).toBe(true);
  });

  it('are read anew when another process has made a version since', async () => {
    const { cipher, shelf } = openWorld();
    const other = openWorld({ messagesMax: 2 }).ring.cipherFor(principalOf('acme'), shelf);
    (await cipher.sealer(1)).seal(column, ['a'], text);
    const record = (await other.sealer(1)).seal(column, ['b'], text);
    expect(shelf.rows.map(({ version }) => version)).toEqual([1, 2]);
    expect((await cipher.open(column, ['b'], record)).equals(text)).toBe(true);
  });

  it('of at most as many tenants as are allowed are kept', async () => {
    const { ring } = openWorld({ entriesMax: 3 });
    for (let index = 0; index < 10; index++) await ring.cipherFor(principalOf(`tenant-${index}`), new Shelf()).sealer(1);
    expect(ring.size).toBe(3);
  });
});

describe('counting', () => {
  it('goes to the database once for many values', async () => {
    const { cipher, shelf } = openWorld();
    for (let index = 0; index < 4_096; index++) await cipher.sealer(1);
    expect(shelf.reservations).toBe(0);
    await cipher.sealer(1);
    expect(shelf.reservations).toBe(1);
    expect(shelf.rows[0]?.messages).toBe(8_192);
  });

  it('makes a new version where the old one is full, at n and not before', async () => {
    const { cipher, shelf } = openWorld({ messagesMax: 10 });
    await cipher.sealer(10);
    expect(shelf.rows).toHaveLength(1);
    expect((await cipher.sealer(1)).version).toBe(2);
    expect(shelf.rows.map(({ messages }) => messages)).toEqual([10, 10]);
  });

  it('refuses a value that was not counted', async () => {
    const { cipher } = openWorld();
    const sealer = await cipher.sealer(1);
    sealer.seal(column, ['a'], text);
    expect(() => sealer.seal(column, ['b'], text)).toThrow('counted');
  });
});

describe('a value that is not the tenant’s', () => {
  it('does not open for another tenant, raises the alarm and says nothing of it', async () => {
    const logged: LogFields[] = [];
    const logger: Logger = { ...silentLogger, error: (fields) => logged.push(fields) };
    const { ring, cipher, alarms } = openWorld({ logger });
    const record = (await cipher.sealer(1)).seal(column, ['a'], text);
    const globex = ring.cipherFor(principalOf('globex'), new Shelf());
    await globex.sealer(1);
    await expect(globex.open(column, ['a'], record)).rejects.toMatchObject({ code: 'sealed_data_unreadable' });
    expect(alarms).toEqual(['globex note.body']);
    expect(logged).toEqual([{ component: 'at-rest', tenantId: 'globex', code: 'isolation_alarm', reason: 'note.body a' }]);
  });

  it('does not open even with the other tenant’s wrapped key beside it', async () => {
    const { ring, cipher, shelf, alarms } = openWorld();
    const record = (await cipher.sealer(1)).seal(column, ['a'], text);
    const stolen = new Shelf();
    stolen.rows = [...shelf.rows];
    await expect(ring.cipherFor(principalOf('globex'), stolen).open(column, ['a'], record)).rejects.toMatchObject({
      code: 'sealed_data_unreadable',
    });
    expect(alarms).toEqual(['globex data_key.wrapped']);
  });

  it('is named by a digest where the client chose the name of its row', async () => {
    const logged: LogFields[] = [];
    const { cipher } = openWorld({ logger: { ...silentLogger, error: (fields) => logged.push(fields) } });
    await cipher.sealer(1);
    const secretive = { ...column, rowKeyIsTheClients: true };
    await expect(cipher.open(secretive, ['my secret key'], Buffer.alloc(40, 1))).rejects.toThrow();
    expect(JSON.stringify(logged)).not.toContain('secret');
    expect(logged[0]?.reason).toMatch(/^note\.body sha256 [0-9a-f]{16}$/);
  });

  it('is not believed in plain, unless the tenant has rows from before there was encryption', async () => {
    const { cipher, shelf, clock, alarms } = openWorld();
    await cipher.sealer(1);
    const plain = Buffer.concat([Buffer.of(0), text]);
    await expect(cipher.open(column, ['a'], plain)).rejects.toMatchObject({ code: 'sealed_data_unreadable' });
    expect(alarms).toEqual(['acme note.body']);
    shelf.hasPlainRows = true;
    clock.advance(ttlMs);
    expect((await cipher.open(column, ['a'], plain)).equals(text)).toBe(true);
  });
});

describe('keys that go', () => {
  it('are wiped at once when they are forgotten, and nobody seals with them', async () => {
    const { cipher } = openWorld();
    const sealer = await cipher.sealer(2);
    sealer.seal(column, ['a'], text);
    cipher.forget();
    expect(() => sealer.seal(column, ['b'], text)).toThrow(expect.objectContaining({ code: 'key_unavailable' }));
  });

  it('may finish sealing after their time is up, for a while and no longer', async () => {
    const { cipher, clock } = openWorld();
    const sealer = await cipher.sealer(3);
    clock.advance(ttlMs + sealGraceMs);
    await cipher.sealer(1);
    sealer.seal(column, ['a'], text);
    clock.advance(1);
    expect(() => sealer.seal(column, ['b'], text)).toThrow(expect.objectContaining({ code: 'key_unavailable' }));
  });

  it('are refused, with the master key’s name, when that is not configured', async () => {
    const logged: LogFields[] = [];
    const { shelf, cipher } = openWorld();
    await cipher.sealer(1);
    const other = openWorld({
      masters: masterKeys(localMasterKey(Buffer.alloc(32, 2))),
      logger: { ...silentLogger, error: (fields) => logged.push(fields) },
    });
    await expect(other.ring.cipherFor(principalOf('acme'), shelf).sealer(1)).rejects.toMatchObject({ code: 'key_unavailable' });
    expect(logged[0]?.reason).toContain('local:');
  });
});
