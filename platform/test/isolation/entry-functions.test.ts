/** Functions that become the tenant themselves: they see what that tenant's transactions see, and leave nothing behind on the connection. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openChunks, readRankedAt } from '../../src/adapters/postgres/documents-search-rows.ts';
import { Library, sql } from '../retrieval/library.ts';
import { principalOf } from '../support/embedded-database.ts';

let library: Library;
const stores = new Map<string, { id: string; revision: number; shards: number[] }>();
beforeAll(async () => {
  library = await Library.open();
  for (const tenant of ['acme', 'globex']) {
    const id = await library.storeOf(tenant, [`the secret of ${tenant}`, `another of ${tenant}`]);
    const [row] = await library.truth<{ revision: string; shard_id: number }>(
      'SELECT revision, shard_id FROM app.vector_store WHERE id = $1',
      [id],
    );
    stores.set(tenant, { id, revision: Number(row?.revision), shards: [row?.shard_id ?? 0] });
  }
});
afterAll(() => library[Symbol.asyncDispose]());

const databaseOf = (tenant: string) => library.db.database.forTenant(principalOf(tenant));
const names = { fileId: 'file-x', filename: 'x.txt', attributes: {} };
const files = new Map([
  [1, names],
  [2, names],
]);
const ranked = [
  { fileNo: 2, ordinal: 0, score: 0.5 },
  { fileNo: 1, ordinal: 0, score: 0.25 },
];

async function readAs(tenant: string, owner: string, changes: { revision?: number; shards?: number[] } = {}) {
  const { id: storeId, revision, shards } = stores.get(owner) as { id: string; revision: number; shards: number[] };
  const database = databaseOf(tenant);
  const read = await readRankedAt(database, { storeId, storeNo: 1, revision, shards, files, ...changes }, ranked);
  return read && { ...read, chunks: read.chunks && (await openChunks(database.cipher, read.chunks)) };
}

describe('rows of a ranking in one round trip', () => {
  test('are those that were asked for, in their order', async () => {
    const found = await readAs('acme', 'acme');
    expect(found?.chunks?.map(({ text, score, ownerId }) => [text, score, ownerId])).toEqual([
      ['another of acme', 0.5, 'acme'],
      ['the secret of acme', 0.25, 'acme'],
    ]);
  });

  test('are not given for another revision or another shard, and the present ones are told', async () => {
    for (const change of [{ revision: 0 }, { shards: [99] }]) {
      const found = await readAs('acme', 'acme', change);
      expect(found?.chunks).toBeUndefined();
      expect(found?.head).toMatchObject({ revision: stores.get('acme')?.revision, shards: stores.get('acme')?.shards });
    }
  });

  test('of another tenant’s store are those of no store', async () => {
    expect(await readAs('globex', 'acme')).toBeUndefined();
    const none = { storeId: 'vs_none', revision: 1, storeNo: 1, shards: [0], files };
    expect(await readRankedAt(databaseOf('globex'), none, ranked)).toBeUndefined();
  });

  test('take a hostile store id as text', async () => {
    for (const storeId of ["'); DROP TABLE app.chunk; --", '\\', "x' OR 'a'='a", '\u{1f600}', '']) {
      expect(await readRankedAt(databaseOf('acme'), { storeId, revision: 1, storeNo: 1, shards: [0], files }, ranked)).toBeUndefined();
    }
  });

  test('cannot be asked for with numbers that are none', async () => {
    const place = { fileNo: "1}'); DROP TABLE app.chunk; --" as unknown as number, ordinal: 0, score: 1 };
    await expect(readRankedAt(databaseOf('acme'), { storeId: 'vs', revision: 1, storeNo: 1, shards: [0], files }, [place])).rejects.toThrow(
      'whole',
    );
  });

  test('are refused where the tenant does not live any more, even when its rows are still there', async () => {
    await databaseOf('globex').write((db) => sql`INSERT INTO app.residence (state, token) VALUES ('gone', 'move')`.execute(db));
    await expect(readAs('globex', 'globex')).rejects.toMatchObject({ sqlState: 'BH001' });
    await databaseOf('globex').write((db) => sql`DELETE FROM app.residence`.execute(db));
    expect((await readAs('globex', 'globex'))?.chunks).toHaveLength(2);
  });

  test('are given while the tenant moves: readers may enter', async () => {
    await databaseOf('globex').write((db) => sql`INSERT INTO app.residence (state, token) VALUES ('closing', 'move')`.execute(db));
    expect((await readAs('globex', 'globex'))?.chunks).toHaveLength(2);
    await databaseOf('globex').write((db) => sql`DELETE FROM app.residence`.execute(db));
  });
});

test('nothing of the tenant or the role outlives the statement', async () => {
  await library.db.database.withClient(async (client) => {
    const state = async () => (await client.query("SELECT current_user AS role, current_setting('app.tenant_id', true) AS tenant")).rows;
    const before = await state();
    await client.query("SELECT * FROM public.bulkhead_ranked_chunks('acme', 'vs_none', 1, '{0}', '{1}', '{0}')");
    const after = await state();
    expect(after[0]?.role).toBe(before[0]?.role);
    expect([null, '']).toContain(after[0]?.tenant);
  });
});

test('200 calls of two tenants at once never answer with the other’s rows', async () => {
  const tenants = Array.from({ length: 200 }, (_, index) => (index % 2 === 0 ? 'acme' : 'globex'));
  const found = await Promise.all(tenants.map((tenant) => readAs(tenant, tenant)));
  for (const [index, read] of found.entries()) {
    expect(read?.chunks).toHaveLength(2);
    expect(read?.chunks?.every((chunk) => chunk.ownerId === tenants[index] && chunk.text.endsWith(tenants[index] as string))).toBe(true);
  }
});
