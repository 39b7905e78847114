/** A tenant is erased: nothing of it is left in any table or file, the receipt says so and can be checked, and nobody else notices. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { Database } from '../../src/adapters/postgres/database.ts';
import { purge } from '../../src/adapters/postgres/erasure-purge.ts';
import { searchServerFiles } from '../../src/adapters/postgres/erasure-search.ts';
import { OwnerDatabase } from '../../src/adapters/postgres/owner-database.ts';
import { signatureFault } from '../../src/primitives/signed-document.ts';
import type { CanaryPlanter, DeletionReceipt, PlantedCanaries } from '../../src/tenancy/tenant-erasure.ts';
import { principalOf, tenantId } from '../support/embedded-database.ts';
import { urlOf } from '../support/server-database.ts';
import { type ErasureWorld, type ErasureWorldOptions, openErasureWorld, operator, signer } from './erasure-world.ts';

const { signal } = new AbortController();
const isServer = process.env['BULKHEAD_TEST_ENGINE'] === 'server';
/** An erasure reads and writes the whole database. */
const waitMs = 180_000;
/** A server's other files are not ours to write. */
const itEmbedded = isServer ? () => {} : it;
const textsOf = (tenant: string) => [
  `The pump of ${tenant} loses pressure in winter.`,
  'The lease is signed by the tenant.',
  'A storm damaged the roof; the report is attached.',
];
const erase = (world: ErasureWorld) => world.eraser.erase(operator, principalOf('acme'), { signal });

/** A transaction that stays open for a while. */
async function holding(database: Database, begin: string): Promise<void> {
  await database.withClient(async (client) => {
    await client.query(begin);
    await wait(3_000);
    await client.query('COMMIT');
  });
}

interface Filled {
  readonly world: ErasureWorld;
  readonly neighbour: string;
  readonly own: string;
}

/** Planner statistics quote what was planted. */
function analysing(worldOf: () => ErasureWorld | undefined): ErasureWorldOptions {
  return {
    onStep: async (step) => {
      if (step === 'found') await worldOf()?.silo.shared.withClient((client) => client.query('ANALYZE'));
    },
  };
}

async function filledWorld(options: ErasureWorldOptions = {}): Promise<Filled> {
  const world = await openErasureWorld(options);
  const stores: string[] = [];
  for (const tenant of ['acme', 'globex']) {
    await world.silo.addTenant(tenant);
    stores.push(await world.fill(tenant, textsOf(tenant)));
  }
  return { world, own: stores[0] ?? '', neighbour: stores[1] ?? '' };
}

/** As a superuser, past every wall: rows with this tenant in any table, but for what the receipt says is kept. */
async function rowsLeft(world: ErasureWorld, receipt: DeletionReceipt): Promise<Record<string, number>> {
  const kept = new Set(receipt.surfaces.filter(({ kept: why }) => why !== undefined).map(({ name }) => name));
  return world.silo.shared.withClient(async (client) => {
    const { rows: tables } = await client.query<{ readonly name: string }>(
      `SELECT DISTINCT table_schema || '.' || table_name AS name FROM information_schema.columns
        WHERE column_name = 'tenant_id' AND table_schema IN ('app', 'control')`,
    );
    const left: Record<string, number> = {};
    for (const { name } of tables) {
      const { rows } = await client.query<{ readonly count: string }>(`SELECT count(*) FROM ${name} WHERE tenant_id = 'acme'`);
      if (Number(rows[0]?.count) > 0 && !kept.has(name)) left[name] = Number(rows[0]?.count);
    }
    return left;
  });
}

describe.each(['pooled', 'siloed'] as const)('a %s tenant that is erased', { timeout: waitMs }, (isolation) => {
  it('is gone from every table and file, with a receipt, and its neighbour finds the same bit for bit', async () => {
    const { world, neighbour }: Filled = await filledWorld(analysing(() => world));
    await using _ = world;
    if (isolation === 'siloed') await world.silo.mover.move(operator, principalOf('acme'), { destination: 'siloed', signal });
    const before = await world.ask('globex', neighbour);
    const receipt = await erase(world);
    expect(signatureFault(JSON.parse(JSON.stringify(receipt)), 'bulkhead.deletion-receipt', signer.publicKey)).toBeUndefined();
    const { body } = receipt;
    expect(body).toMatchObject({ tenant: 'acme', isolation, version: 1 });
    const surface = (name: string) => body.surfaces.find((each) => each.name === name);
    const home = isolation === 'siloed' ? 'silo app' : 'app';
    for (const table of ['file', 'file_part', 'chunk', 'posting', 'embedding_384', 'vector_store', 'response', 'idempotency']) {
      expect(surface(`${home}.${table}`), table).toMatchObject({ after: 0 });
      expect(surface(`${home}.${table}`)?.before, table).toBeGreaterThan(0);
    }
    expect(surface('app.usage_event')).toMatchObject({ before: 1, after: 0 });
    expect(surface('control.api_key')).toMatchObject({ before: 1, after: 0 });
    expect(surface('control.usage_daily')).toMatchObject({ before: 1, after: 1, kept: expect.stringContaining('bill') });
    expect(body.surfaces.filter(({ after, kept }) => after !== 0 && kept === undefined)).toEqual([]);
    const looked = body.canaries.map((canary) => canary.surface);
    for (const place of [
      'file.filename',
      'file_part.body',
      'chunk.content',
      'posting.lexeme',
      'embedding_384.embedding',
      'response.response',
    ]) {
      expect(looked).toContain(`app.${place}`);
    }
    for (const { foundBefore, foundAfter } of body.canaries) expect([foundBefore > 0, foundAfter]).toEqual([true, 0]);
    expect(body.search.method).toBe(isServer && isolation === 'siloed' ? 'rows' : 'files');
    expect(body.rewritten.map(({ relation }) => relation)).toContain('app.response');
    expect(await rowsLeft(world, body)).toEqual({});
    expect(await world.ask('globex', neighbour)).toEqual(before);
  });

  it('is gone from the statistics of tables that it alone filled', async () => {
    const world: ErasureWorld = await openErasureWorld(analysing(() => world));
    await using _ = world;
    await world.silo.addTenant('acme');
    await world.fill('acme', textsOf('acme'));
    if (isolation === 'siloed') await world.silo.mover.move(operator, principalOf('acme'), { destination: 'siloed', signal });
    expect((await erase(world)).body.tenant).toBe('acme');
  });

  it('answers nobody, comes back as nobody, and has one receipt', async () => {
    const { world, own } = await filledWorld();
    await using _ = world;
    const receipt = await erase(world);
    expect(await erase(world)).toEqual(receipt);
    expect(await world.directory.find(tenantId('acme'))).toBeUndefined();
    await expect(world.silo.addTenant('acme')).rejects.toMatchObject({ code: 'already_exists' });
    await expect(world.ask('acme', own)).rejects.toMatchObject({ code: 'database_unavailable' });
    await expect(
      world.cabinets('acme').files.create({ filename: 'late.txt', purpose: 'x', body: Buffer.from('late') }),
    ).rejects.toMatchObject({
      code: 'database_unavailable',
    });
    expect(await world.eraser.receipts(operator, 10)).toEqual([receipt]);
    expect(await world.eraser.unfinished(operator)).toEqual([]);
  });
});

/** The embedded engine has one session. */
const itServer = isServer ? it : () => {};

describe('a receipt', { timeout: waitMs }, () => {
  const sights = [
    [
      'a reader in this database',
      async (world: ErasureWorld) => holding(world.silo.shared, 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1'),
    ],
    [
      // The oldest number in use anywhere on the server is where every new snapshot starts, that of the rewriting too.
      'a writer in another database',
      async () => {
        const other = new Database({ connection: { url: urlOf('postgres') }, poolSize: 1, queryTimeoutMs: 30_000 });
        await holding(other, 'BEGIN; SELECT pg_current_xact_id()');
        await other.close();
      },
    ],
  ] as const;

  for (const [who, see] of sights) {
    itServer(`waits for ${who}, for whom deleted rows would be written anew with the others`, async () => {
      let seen: Promise<void> | undefined;
      const { world }: Filled = await filledWorld({
        onStep: async (step) => {
          if (step !== 'counted') return;
          seen = see(world);
          await wait(500);
        },
      });
      await using _ = world;
      expect((await erase(world)).body.tenant).toBe('acme');
      await seen;
    });
  }

  itServer('waits for a reader that came while tables were written anew, for whom dropped statistics would be', async () => {
    const world = await openErasureWorld();
    await using _ = world;
    const { shared } = world.silo;
    const owner = new OwnerDatabase(operator, shared, 'server');
    await world.silo.addTenant('acme');
    await world.fill('acme', textsOf('acme'));
    const quoted = async () => {
      const lexemes = ['pump', 'winter', 'storm', 'roof'].map((lexeme) => Buffer.from(lexeme));
      const places = (await searchServerFiles(owner, lexemes, signal))?.places ?? [];
      return places.filter((place) => place.includes('pg_statistic') || place.includes('pg_toast_2619'));
    };
    const shards = [0, 1, 2, 3, 4, 5, 6, 7];
    const relations = (await purge(owner, shards, async () => {})).rewritten.length;
    await shared.withClient(async (client) => {
      await client.query('ANALYZE');
      await client.query('DELETE FROM app.posting; DELETE FROM app.chunk');
    });
    expect(await quoted()).not.toEqual([]);
    let calls = 0;
    let seen: Promise<void> | undefined;
    await purge(owner, shards, async () => {
      // Every relation was written anew, and no statistics were dropped yet.
      if (++calls <= relations) return;
      seen ??= holding(shared, 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
      await wait(500);
    });
    expect(await quoted()).toEqual([]);
    await seen;
  });

  it('is refused while rows are left, names them, and is given once they are gone', async () => {
    const { world } = await filledWorld();
    await using _ = world;
    const onServer = (text: string) => world.silo.shared.withClient((client) => client.query(text));
    await onServer("CREATE FUNCTION public.keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'");
    await onServer('CREATE TRIGGER keep BEFORE DELETE ON app.response FOR EACH ROW EXECUTE FUNCTION public.keep()');
    await expect(erase(world)).rejects.toMatchObject({ code: 'erasure_incomplete', message: expect.stringContaining('in app.response') });
    expect(await world.eraser.find(operator, tenantId('acme'))).toMatchObject({
      step: 'counted',
      refusal: expect.stringContaining('app.response'),
    });
    await onServer('DROP TRIGGER keep ON app.response');
    expect((await erase(world)).body.surfaces.find(({ name }) => name === 'app.response')).toMatchObject({ after: 0 });
  });

  itEmbedded('is refused while a file holds a canary, and names the file', async () => {
    let planted: PlantedCanaries | undefined;
    const remembering = (planter: CanaryPlanter): CanaryPlanter => ({
      plant: async (tenant) => (planted = await planter.plant(tenant)),
    });
    const dataDirs: string[] = [];
    const { world } = await filledWorld({
      planting: remembering,
      onStep: (step) => {
        if (step === 'counted') writeFileSync(join(dataDirs[0] ?? '', 'left.log'), `x${planted?.tokens[0]}x`);
      },
    });
    await using _ = world;
    dataDirs.push(world.silo.dataDir);
    await expect(erase(world)).rejects.toMatchObject({ code: 'erasure_incomplete', message: expect.stringContaining('left.log') });
  });

  it('is refused while it is unknown how much is somewhere', async () => {
    const surface = { name: 'tape library', count: () => Promise.reject(new Error('no tape drive')), erase: async () => {} };
    const { world } = await filledWorld({ surfaces: [surface] });
    await using _ = world;
    await expect(erase(world)).rejects.toMatchObject({ code: 'erasure_incomplete', message: expect.stringContaining('tape library') });
  });

  it('is refused when the search is blind', async () => {
    const elsewhere = (planter: CanaryPlanter): CanaryPlanter => ({
      plant: async (tenant) => {
        const planted = await planter.plant(tenant);
        return { ...planted, ids: [] };
      },
    });
    const { world } = await filledWorld({ planting: elsewhere });
    await using _ = world;
    await expect(erase(world)).rejects.toThrow('no canary could be planted');
  });
});
