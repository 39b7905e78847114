/** The embedded database is vacuumed in quiet moments, and searches beside it are held up for as long as one table takes. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { PostgresEmbeddedUpkeep } from '../../src/adapters/postgres/embedded-upkeep.ts';
import { type DatabaseUpkeepParts, runDatabaseUpkeep, type WornTable } from '../../src/jobs/database-upkeep.ts';
import { silentLogger } from '../../src/telemetry/logger.ts';
import { openSiloWorld, operator } from '../silos/silo-world.ts';
import { type EmbeddedTestDatabase, openEmbeddedTestDatabase, principalOf } from '../support/embedded-database.ts';

let db: EmbeddedTestDatabase;
const query = (text: string) => db.database.withClient(async (client) => (await client.query(text)).rows as Record<string, string>[]);

beforeAll(async () => {
  db = await openEmbeddedTestDatabase();
});
afterAll(() => db[Symbol.asyncDispose]());

/** Until the engine's statistics know of them: it writes them down once a second. */
async function wearOut(): Promise<void> {
  await query(`INSERT INTO app.response (tenant_id, id, created_at_ms, response, input_items)
    SELECT 'acme', 'r' || g, g, '\\x00'::bytea || convert_to(repeat('word ', 20), 'UTF8'), '\\x00'::bytea FROM generate_series(1, 4000) g`);
  await query("DELETE FROM app.response WHERE tenant_id = 'acme'");
  await expect.poll(async () => Number((await deadRows())[0]?.['n']), { timeout: 30_000, interval: 300 }).toBeGreaterThanOrEqual(4_000);
}

const deadRows = () => query("SELECT n_dead_tup AS n FROM pg_stat_user_tables WHERE relname = 'response'");

async function upkeepUntil(
  parts: Partial<DatabaseUpkeepParts>,
  isDone: (mended: readonly WornTable[]) => boolean,
): Promise<readonly WornTable[]> {
  const mended: WornTable[] = [];
  const stop = new AbortController();
  const running = runDatabaseUpkeep(
    {
      upkeep: new PostgresEmbeddedUpkeep(db.database),
      openExchanges: () => 0,
      logger: silentLogger,
      pauseMs: 5,
      quietMs: 5,
      deadRowsMin: 4_000,
      onMended: (table) => {
        mended.push(table);
        if (isDone(mended)) stop.abort();
      },
      ...parts,
    },
    stop.signal,
  );
  await running;
  return mended;
}

test('dead rows are removed and the table is analysed, and nothing is vacuumed twice', async () => {
  await wearOut();
  const mended = await upkeepUntil({}, (tables) => tables.some(({ name }) => name === 'app.response'));
  expect(mended.filter(({ name }) => name === 'app.response')).toHaveLength(1);
  const [row] = await query("SELECT n_dead_tup AS dead, last_vacuum, last_analyze FROM pg_stat_user_tables WHERE relname = 'response'");
  expect(row?.['last_vacuum']).not.toBeNull();
  expect(row?.['last_analyze']).not.toBeNull();
  await expect.poll(async () => Number((await deadRows())[0]?.['n']), { timeout: 30_000, interval: 300 }).toBe(0);
});

test('a database that is never quiet is mended all the same, later', async () => {
  await wearOut();
  let looks = 0;
  const upkeep = new PostgresEmbeddedUpkeep(db.database);
  const counted: DatabaseUpkeepParts['upkeep'] = {
    worn: async (rows) => {
      looks++;
      return (await upkeep.worn(rows)).filter(({ name }) => name === 'app.response');
    },
    mend: (table) => upkeep.mend(table),
    longLogs: async () => [],
    checkpoint: async () => {},
  };
  await upkeepUntil({ upkeep: counted, openExchanges: () => 1 }, () => true);
  expect(looks).toBe(21);
});

test('the write-ahead log is cut, before long without a quiet moment too', async () => {
  const upkeep = new PostgresEmbeddedUpkeep(db.database);
  const write = () =>
    query(
      "INSERT INTO app.response (tenant_id, id, created_at_ms, response, input_items) SELECT 'acme', gen_random_uuid()::text, 0, '\\x00'::bytea, '\\x00'::bytea FROM generate_series(1, 2000)",
    );
  for (const openExchanges of [() => 0, () => 1]) {
    await write();
    const [before] = await upkeep.longLogs(0);
    expect(before?.bytes).toBeGreaterThan(200_000);
    const stop = new AbortController();
    const counted: DatabaseUpkeepParts['upkeep'] = {
      worn: async () => [],
      mend: async () => {},
      longLogs: (bytesMin) => upkeep.longLogs(bytesMin),
      checkpoint: async (log) => {
        await upkeep.checkpoint(log);
        stop.abort();
      },
    };
    const parts = { upkeep: counted, openExchanges, logger: silentLogger, pauseMs: 5, quietMs: 5, logBytesMin: 20_000 };
    await runDatabaseUpkeep(parts, stop.signal);
    const [after] = await upkeep.longLogs(0);
    expect(after?.bytes).toBeLessThan(20_000);
  }
});

test('a tenant’s own database is vacuumed while it is open, and only then', async () => {
  await using world = await openSiloWorld();
  await world.addTenant('acme');
  const acme = principalOf('acme');
  await world.mover.move(operator, acme, { destination: 'siloed', signal: new AbortController().signal });
  const inSilo = async (text: string) => {
    let rows: readonly Record<string, unknown>[] = [];
    await world.silos.visit(async (database) => {
      rows = (await database.withClient((client) => client.query<Record<string, unknown>>(text))).rows;
    });
    return rows;
  };
  await world.homes.forTenant(acme).read(async () => {});
  await inSilo(`INSERT INTO app.response (tenant_id, id, created_at_ms, response, input_items)
    SELECT 'acme', 'r' || g, g, '\\x00'::bytea || convert_to(repeat('word ', 20), 'UTF8'), '\\x00'::bytea FROM generate_series(1, 4000) g`);
  await inSilo("DELETE FROM app.response WHERE tenant_id = 'acme'");
  const upkeep = new PostgresEmbeddedUpkeep(world.shared, world.silos);
  const worn = async () => (await upkeep.worn(4_000)).filter(({ name }) => name === 'app.response');
  await expect.poll(worn, { timeout: 30_000, interval: 300 }).toMatchObject([{ place: expect.stringContaining('acme') }]);
  for (const table of await worn()) await upkeep.mend(table);
  const logOf = async () => (await upkeep.longLogs(0)).find(({ place }) => place !== undefined);
  const log = await logOf();
  expect(log?.bytes).toBeGreaterThan(100_000);
  if (log !== undefined) await upkeep.checkpoint(log);
  expect((await logOf())?.bytes).toBeLessThan(100_000);
  await expect.poll(worn, { timeout: 30_000, interval: 300 }).toEqual([]);
  expect(await inSilo("SELECT 1 FROM pg_stat_user_tables WHERE relname = 'response' AND last_vacuum IS NOT NULL")).toHaveLength(1);
  const shared = await world.shared.withClient((client) =>
    client.query("SELECT 1 FROM pg_stat_user_tables WHERE relname = 'response' AND last_vacuum IS NOT NULL"),
  );
  expect(shared.rows).toEqual([]);
});
