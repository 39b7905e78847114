/** A new data key of a tenant, a new master key of everybody, and what was stored before there was encryption. */
import { setTimeout as wait } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { PostgresDataKeyCustody } from '../../src/adapters/postgres/data-key-custody.ts';
import { PostgresDataKeys } from '../../src/adapters/postgres/data-keys.ts';
import { admitMasterKeys, PostgresMasterKeyRegister } from '../../src/adapters/postgres/master-keys.ts';
import { openResponseCabinet } from '../../src/adapters/postgres/responses.ts';
import { PostgresTenantDirectory } from '../../src/adapters/postgres/tenant-directory.ts';
import { localMasterKey } from '../../src/encryption/local-master-key.ts';
import { masterKeys } from '../../src/encryption/master-key.ts';
import { KeyRotation } from '../../src/jobs/key-rotation.ts';
import { systemClock } from '../../src/primitives/clock.ts';
import { systemIds } from '../../src/primitives/ids.ts';
import { silentLogger } from '../../src/telemetry/logger.ts';
import { mintOperatorScope } from '../../src/tenancy/mint-operator-scope.ts';
import { Library, type LibraryOptions, question } from '../retrieval/library.ts';
import { principalOf, tenantId } from '../support/embedded-database.ts';
import { testKeyRing } from '../support/key-ring.ts';

const operator = mintOperatorScope('test');
const first = localMasterKey(Buffer.alloc(32, 7));
const second = localMasterKey(Buffer.alloc(32, 8));
const atOnce = { writersMs: 0, readersMs: 0, stepMs: 20, pauseMs: 0 };
const opened: Library[] = [];
afterEach(async () => {
  for (const library of opened.splice(0)) await library[Symbol.asyncDispose]();
});

async function openLibrary(options: LibraryOptions = {}): Promise<Library> {
  const library = await Library.open({ resealing: atOnce, ...options });
  opened.push(library);
  const directory = new PostgresTenantDirectory(library.db.database, systemClock);
  for (const id of ['acme', 'globex']) {
    await directory.create(operator, { id: tenantId(id), name: id, tier: 'free', isolation: 'pooled', overrides: {} });
  }
  return library;
}

function rotationOf(library: Library, masters = masterKeys(first)): KeyRotation {
  const { database } = library.db;
  return new KeyRotation({
    masters,
    register: new PostgresMasterKeyRegister(database),
    registry: new PostgresTenantDirectory(database, systemClock),
    custodyOf: (principal) =>
      new PostgresDataKeyCustody({
        database: database.forTenant(principal),
        principal,
        ids: systemIds,
        clock: systemClock,
        sealJob: (who, job) => library.envelopes.seal(who, job),
      }),
    logger: silentLogger,
  });
}

const responsesOf = (library: Library, tenant: string) => openResponseCabinet(library.db.database.forTenant(principalOf(tenant)));
const response = (id: string) => ({ id, createdAtMs: 1, response: { said: id }, inputItems: [] });

/** Versions that values of the tenant are sealed under, with how many; 0 is plain. */
async function versionsOf(library: Library, tenant: string): Promise<Readonly<Record<string, number>>> {
  const rows = await library.truth<{ head: Buffer }>(
    `SELECT substring(v FROM 1 FOR 5) AS head FROM (
       SELECT content AS v, tenant_id FROM app.chunk UNION ALL SELECT body, tenant_id FROM app.file_part
       UNION ALL SELECT response, tenant_id FROM app.response UNION ALL SELECT input_items, tenant_id FROM app.response
       UNION ALL SELECT body, tenant_id FROM app.idempotency WHERE body IS NOT NULL) every WHERE tenant_id = $1`,
    [tenant],
  );
  const counts: Record<string, number> = {};
  for (const { head } of rows) {
    const version = head[0] === 0 ? 0 : head.readUInt32BE(1);
    counts[version] = (counts[version] ?? 0) + 1;
  }
  return counts;
}

const keysOf = async (library: Library, tenant: string) =>
  (await library.truth<{ version: string }>('SELECT version FROM app.data_key WHERE tenant_id = $1 ORDER BY version', [tenant])).map(
    (row) => Number(row.version),
  );

/** On a busy machine too. */
const slow = { timeout: 180_000 };

describe('a new data key', slow, () => {
  it('seals what comes, opens what was, and seals it anew until the old key can go', async () => {
    const library = await openLibrary();
    const store = await library.storeOf(
      'acme',
      Array.from({ length: 5 }, (_, index) => `page ${index} about the lighthouse`),
    );
    const other = await library.storeOf('globex', ['a page of somebody else']);
    const responses = responsesOf(library, 'acme');
    await responses.create(response('resp_before'));
    expect(await rotationOf(library).rotate(operator, tenantId('acme'))).toBe(2);
    await library.db.database.forTenant(principalOf('acme')).cipher.renew();
    await responses.create(response('resp_after'));
    expect(await versionsOf(library, 'acme')).toEqual({ 1: 12, 2: 2 });
    expect((await responses.get('resp_before'))?.response).toEqual({ said: 'resp_before' });

    await library.worker.drain();
    expect(await versionsOf(library, 'acme')).toEqual({ 2: 14 });
    expect(await keysOf(library, 'acme')).toEqual([2]);
    expect(await keysOf(library, 'globex')).toEqual([1]);
    const found = await library.shelves('acme').vectorStores.search(store, question('lighthouse'));
    expect(found?.[0]?.text).toContain('lighthouse');
    expect((await responses.get('resp_before'))?.response).toEqual({ said: 'resp_before' });
    expect(await library.shelves('globex').vectorStores.search(other, question('page'))).toHaveLength(1);
    expect(library.alarms).toEqual([]);
  });

  it('comes while the tenant reads, writes and deletes, and nothing is missed or lost', async () => {
    const library = await openLibrary();
    const { files } = library.shelves('acme');
    const responses = responsesOf(library, 'acme');
    for (let index = 0; index < 20; index++) await responses.create(response(`resp_${index}`));
    const rotation = rotationOf(library);
    let isOver = false;
    const working = (async () => {
      let written = 0;
      while (!isOver || written < 10) {
        await responses.create(response(`resp_new_${written}`));
        if (written < 10) expect(await responses.delete(`resp_${written}`)).toBe(true);
        expect((await responses.get(`resp_${10 + (written % 10)}`))?.response).toEqual({ said: `resp_${10 + (written % 10)}` });
        await files.create({ filename: 'a', purpose: 'assistants', body: Buffer.from('body') });
        written++;
        await wait(10);
      }
      return written;
    })();
    for (let version = 2; version <= 3; version++) {
      await rotation.rotate(operator, tenantId('acme'));
      await library.worker.drain();
    }
    isOver = true;
    const written = await working;
    await library.worker.drain();
    expect(await keysOf(library, 'acme')).toEqual([3]);
    expect(await versionsOf(library, 'acme')).toEqual({ 3: 2 * (10 + written) + written });
    expect(library.alarms).toEqual([]);
  });

  it('lets no older key go while another process may still seal under it, and seals anew what that one wrote behind', async () => {
    const library = await openLibrary({ resealing: { ...atOnce, writersMs: 3_600_000 } });
    const responses = responsesOf(library, 'acme');
    await responses.create(response('resp_a'));
    await rotationOf(library).rotate(operator, tenantId('acme'));
    const elsewhere = await library.db.database.forTenant(principalOf('acme')).cipher.sealer(2);
    await library.worker.drain();
    expect(await keysOf(library, 'acme')).toEqual([1, 2]);
    expect(await versionsOf(library, 'acme')).toEqual({ 2: 2 });
    // A process that has not heard of version 2 writes behind the walk.
    const late = elsewhere.seal({ table: 'response', column: 'response', rowKey: ['id'] }, ['resp_a'], Buffer.from('{"said":"late"}'));
    await library.truth("UPDATE app.response SET response = $1 WHERE id = 'resp_a'", [late]);
    await library.truth("UPDATE app.data_key SET created_at = created_at - interval '2 hours'");
    await library.truth("UPDATE control.job SET ready_at_ms = 0 WHERE kind = 'reseal'");
    await library.truth('UPDATE control.job_turn SET due = true');
    await library.worker.drain();
    expect(await keysOf(library, 'acme')).toEqual([2]);
    expect((await responses.get('resp_a'))?.response).toEqual({ said: 'late' });
    expect(await versionsOf(library, 'acme')).toEqual({ 2: 2 });
  });

  it('keeps the older key when something does not open, raises the alarm and seals the rest anew', async () => {
    const library = await openLibrary();
    const responses = responsesOf(library, 'acme');
    for (const id of ['resp_a', 'resp_b', 'resp_c']) await responses.create(response(id));
    await library.truth("UPDATE app.response SET response = (SELECT response FROM app.response WHERE id = 'resp_a') WHERE id = 'resp_b'");
    await rotationOf(library).rotate(operator, tenantId('acme'));
    await library.worker.drain();
    expect(library.alarms).toEqual(['acme response.response']);
    expect(await keysOf(library, 'acme')).toEqual([1, 2]);
    expect(await versionsOf(library, 'acme')).toEqual({ 1: 1, 2: 5 });
  });
});

describe('content from before there was encryption', slow, () => {
  it('is read until it is sealed, and not believed afterwards', async () => {
    const library = await openLibrary();
    await library.truth("INSERT INTO app.plain_rows (tenant_id) VALUES ('acme')");
    await library.truth(
      `INSERT INTO app.response (tenant_id, id, created_at_ms, response, input_items) VALUES ('acme', 'resp_old', 1, '\\x00'::bytea || convert_to('{"said":"long ago"}', 'UTF8'), '\\x00'::bytea || convert_to('[]', 'UTF8'))`,
    );
    const responses = responsesOf(library, 'acme');
    expect((await responses.get('resp_old'))?.response).toEqual({ said: 'long ago' });
    const rotation = rotationOf(library);
    rotation.start(operator, false);
    await rotation.settled();
    expect(rotation.report).toMatchObject({ status: 'completed', tenantsWithPlainRows: 1 });
    await library.worker.drain();
    expect(await versionsOf(library, 'acme')).toEqual({ 1: 2 });
    expect((await responses.get('resp_old'))?.response).toEqual({ said: 'long ago' });
    await library.truth(
      "UPDATE app.response SET response = '\\x00'::bytea || convert_to('{\"said\":\"forged\"}', 'UTF8') WHERE id = 'resp_old'",
    );
    await expect(responses.get('resp_old')).rejects.toMatchObject({ code: 'sealed_data_unreadable' });
  });
});

describe('a new master key', slow, () => {
  it('takes the data keys over, tried before, and the old one may go when nothing is wrapped by it', async () => {
    const library = await openLibrary();
    const { database } = library.db;
    await admitMasterKeys(database, masterKeys(first), silentLogger);
    for (const tenant of ['acme', 'globex']) await responsesOf(library, tenant).create(response('resp_a'));
    await expect(admitMasterKeys(database, masterKeys(second), silentLogger)).rejects.toMatchObject({ code: 'master_key_refused' });
    const both = masterKeys(second, [first]);
    await admitMasterKeys(database, both, silentLogger);

    const rotation = rotationOf(library, both);
    rotation.start(operator, true);
    await rotation.settled();
    expect(rotation.report).toMatchObject({ status: 'completed', wrappedBy: { [first.id]: 2 }, rewrapped: 0, unreadable: 0, retired: [] });
    rotation.start(operator, false);
    expect(() => rotation.start(operator, false)).toThrow('already');
    await rotation.settled();
    expect(rotation.report).toMatchObject({ status: 'completed', rewrapped: 2, unreadable: 0, retired: [first.id] });
    await admitMasterKeys(database, masterKeys(second), silentLogger);
    await expect(admitMasterKeys(database, masterKeys(first), silentLogger)).rejects.toMatchObject({ code: 'master_key_refused' });

    using ring = testKeyRing({ masters: masterKeys(second) });
    const [row] = await library.truth<{ response: Buffer }>("SELECT response FROM app.response WHERE tenant_id = 'acme'");
    const cipher = ring.cipherFor(principalOf('acme'), new PostgresDataKeys(database.forTenant(principalOf('acme'))));
    const column = { table: 'response', column: 'response', rowKey: ['id'] };
    expect((await cipher.open(column, ['resp_a'], row?.response ?? Buffer.alloc(0))).toString()).toBe('{"said":"resp_a"}');
  });

  it('does not go while one data key is still wrapped by it', async () => {
    const library = await openLibrary();
    const { database } = library.db;
    await admitMasterKeys(database, masterKeys(first), silentLogger);
    for (const tenant of ['acme', 'globex']) await responsesOf(library, tenant).create(response('resp_a'));
    await library.truth("UPDATE app.data_key SET wrapped = set_byte(wrapped, 20, get_byte(wrapped, 20) # 1) WHERE tenant_id = 'globex'");
    const rotation = rotationOf(library, masterKeys(second, [first]));
    rotation.start(operator, false);
    await rotation.settled();
    expect(rotation.report).toMatchObject({ status: 'completed', rewrapped: 1, unreadable: 1, retired: [] });
    expect(await new PostgresMasterKeyRegister(database).ids()).toContain(first.id);
  });

  it('of the same name with other bytes is refused', async () => {
    const library = await openLibrary();
    await admitMasterKeys(library.db.database, masterKeys(first), silentLogger);
    const impostor = masterKeys({ ...second, id: first.id });
    await expect(admitMasterKeys(library.db.database, impostor, silentLogger)).rejects.toMatchObject({ code: 'master_key_refused' });
  });
});
