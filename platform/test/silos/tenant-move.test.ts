/** A tenant moves between the shared database and its own while it is used: nothing is lost, nobody else notices, nothing is left behind. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { PostgresFileCabinet } from '../../src/adapters/postgres/documents-files.ts';
import { PostgresIngestionShelf } from '../../src/adapters/postgres/documents-ingestion.ts';
import { PostgresJobQueue } from '../../src/adapters/postgres/documents-jobs.ts';
import { PostgresReembeddingShelf } from '../../src/adapters/postgres/documents-reembedding.ts';
import { PostgresVectorStoreCabinet } from '../../src/adapters/postgres/documents-stores.ts';
import { PostgresResealer } from '../../src/adapters/postgres/resealer.ts';
import { ResidentPartitions } from '../../src/adapters/postgres/resident-partitions.ts';
import { openResponseCabinet } from '../../src/adapters/postgres/responses.ts';
import { SiloGone } from '../../src/adapters/postgres/silo-source.ts';
import { tenantTables } from '../../src/adapters/postgres/tenant-tables.ts';
import { IngestionWorker } from '../../src/jobs/ingestion-worker.ts';
import { JobEnvelopes } from '../../src/jobs/job-envelope.ts';
import { systemClock } from '../../src/primitives/clock.ts';
import { systemIds } from '../../src/primitives/ids.ts';
import { DocumentReader } from '../../src/rag/parse/document-reader.ts';
import { silentLogger } from '../../src/telemetry/logger.ts';
import { chunking, dimensions, fingerprint, hashedEmbedder, question } from '../retrieval/library.ts';
import { principalOf } from '../support/embedded-database.ts';
import { openSiloWorld, operator, type SiloWorld } from './silo-world.ts';

let world: SiloWorld;
let worker: IngestionWorker;
const reader = new DocumentReader({ parseTimeoutMs: 20_000, parseMemoryMb: 256 });
const envelopes = new JobEnvelopes(Buffer.alloc(32, 7));
const never = new AbortController().signal;
const stores = new Map<string, string>();
/** Stays over every move: what it holds is of a database that the tenant has left. */
const residents = new ResidentPartitions({
  bounds: { residentBytesMax: 16_000_000, residentBytesPerTenantMax: 8_000_000, residentFillsMax: 2, residentSearchesQueuedMax: 64 },
  clock: systemClock,
  logger: silentLogger,
});

function cabinets(tenant: string) {
  const principal = principalOf(tenant);
  const database = world.homes.forTenant(principal);
  const quota = { filesPerTenantMax: 1_000, fileBytesPerTenantMax: 1_024 ** 3, vectorStoresPerTenantMax: 100 };
  const common = { database, ids: systemIds, clock: systemClock, quota, principal, sealJob: envelopes.seal.bind(envelopes) };
  const onEnqueued = () => worker.wake();
  return {
    files: new PostgresFileCabinet(common),
    vectorStores: new PostgresVectorStoreCabinet({
      ...common,
      residents: residents.forTenant(principal, database),
      onEnqueued,
      embedding: { model: 'local-hash-384', dimensions },
      language: 'english',
    }),
    responses: openResponseCabinet(database),
  };
}

async function fill(tenant: string, texts: readonly string[]): Promise<void> {
  const { files, vectorStores } = cabinets(tenant);
  const store = stores.get(tenant) ?? (await vectorStores.create({ name: 'test', metadata: {} })).id;
  stores.set(tenant, store);
  for (const text of texts) {
    const file = await files.create({ filename: 'note.txt', purpose: 'assistants', body: Buffer.from(text) });
    await vectorStores.createBatch(store, [{ fileId: file.id, attributes: { length: text.length }, chunking }]);
  }
  await worker.drain();
}

/** From whatever path answers first, and then all from memory. */
async function answers(tenant: string): Promise<readonly string[]> {
  const { vectorStores } = cabinets(tenant);
  const asked = ['pump pressure in winter', 'who signs the lease', 'storm damage report'];
  const ask = () =>
    Promise.all(asked.map(async (text) => fingerprint(await vectorStores.search(stores.get(tenant) ?? '', question(text)))));
  const first = await ask();
  await residents.settled();
  const { hits } = residents.figures();
  expect(await ask()).toEqual(first);
  expect(residents.figures().hits).toBe(hits + asked.length);
  return first;
}

/** Rows of the tenant in the shared database, in every table but those that stay. */
async function rowsInShared(tenant: string): Promise<number> {
  const tables = (await tenantTables(world.shared)).filter((table) => table.canDelete);
  const counts = await world.shared.withClient(async (client) => {
    const found: number[] = [];
    for (const { name } of tables) {
      const { rows } = await client.query<{ readonly count: string }>(`SELECT count(*) FROM app."${name}" WHERE tenant_id = $1`, [tenant]);
      found.push(Number(rows[0]?.count));
    }
    return found;
  });
  return counts.reduce((sum, count) => sum + count, 0);
}

beforeAll(async () => {
  world = await openSiloWorld();
  worker = new IngestionWorker({
    queue: new PostgresJobQueue(world.shared.forDirectory(), systemClock, 8),
    envelopes,
    reader,
    embedderFor: () => hashedEmbedder,
    shelfOf: (principal) => new PostgresIngestionShelf(world.homes.forTenant(principal)),
    filesOf: (principal) => cabinets(principal.tenantId).files,
    storesOf: (principal) => cabinets(principal.tenantId).vectorStores,
    reembeddingOf: (principal) =>
      new PostgresReembeddingShelf({
        database: world.homes.forTenant(principal),
        principal,
        sealJob: envelopes.seal.bind(envelopes),
        clock: systemClock,
      }),
    resealerOf: (principal) => new PostgresResealer(world.homes.forTenant(principal), { principal, logger: silentLogger }),
    ownsQueue: true,
    chunksPerFileMax: 1_000,
    logger: silentLogger,
  });
  for (const tenant of ['acme', 'globex']) {
    await world.addTenant(tenant);
    await fill(tenant, [
      `The pump of ${tenant} loses pressure in winter.`,
      'The lease is signed by the tenant.',
      'A storm damaged the roof; the report is attached.',
    ]);
  }
});
afterAll(async () => {
  await worker[Symbol.asyncDispose]();
  await reader[Symbol.asyncDispose]();
  await residents[Symbol.asyncDispose]();
  await world[Symbol.asyncDispose]();
});

describe('a tenant that moves into a database of its own', () => {
  it('finds the same, bit for bit, leaves no row behind, and disturbs nobody', async () => {
    const before = { acme: await answers('acme'), globex: await answers('globex') };
    const move = await world.mover.move(operator, principalOf('acme'), { destination: 'siloed', signal: never });
    expect(move).toMatchObject({ destination: 'siloed', step: 'done' });
    expect(move?.report.find(({ table }) => table === 'chunk')?.rows).toBe(3);
    expect({ acme: await answers('acme'), globex: await answers('globex') }).toEqual(before);
    expect(await rowsInShared('acme')).toBe(0);
    expect(await rowsInShared('globex')).toBeGreaterThan(0);
  });

  it('indexes new documents there', async () => {
    await fill('acme', ['A new pump was bought in spring; its pressure holds.']);
    const { vectorStores } = cabinets('acme');
    const found = await vectorStores.search(stores.get('acme') ?? '', question('new pump bought in spring'));
    expect(found?.[0]?.text).toContain('new pump');
    expect(await rowsInShared('acme')).toBe(0);
  });

  it('keeps every write that was acknowledged while it moved, there and back', { timeout: 240_000 }, async () => {
    const { responses } = cabinets('acme');
    const written: string[] = [];
    let isMoving = true;
    const write = async (writer: number) => {
      for (let count = 0; isMoving; count++) {
        const id = `resp_${writer}_${count}`;
        await responses.create({ id, createdAtMs: count, response: { id }, inputItems: [] });
        written.push(id);
      }
    };
    const writers = Promise.all([write(1), write(2)]);
    let place = '';
    try {
      await world.mover.move(operator, principalOf('acme'), { destination: 'pooled', signal: never });
      await world.mover.move(operator, principalOf('acme'), { destination: 'siloed', signal: never });
      place = (await world.register.find(principalOf('acme').tenantId))?.place ?? '';
      await world.mover.move(operator, principalOf('acme'), { destination: 'pooled', signal: never });
    } finally {
      isMoving = false;
      await writers;
    }
    expect(written.length).toBeGreaterThan(20);
    for (const id of written) expect((await responses.get(id))?.id).toBe(id);
    await expect(world.source.open(place)).rejects.toBeInstanceOf(SiloGone);
  });

  it('sees its writer’s last word after every move: a reader never goes back', async () => {
    const { vectorStores } = cabinets('globex');
    const store = stores.get('globex') ?? '';
    let isMoving = true;
    const read = async () => {
      let latest = 0;
      while (isMoving) {
        const files = (await vectorStores.get(store))?.fileCounts.completed ?? 0;
        expect(files).toBeGreaterThanOrEqual(latest);
        latest = files;
      }
    };
    const readers = Promise.all([read(), read()]);
    try {
      await world.mover.move(operator, principalOf('globex'), { destination: 'siloed', signal: never });
      await fill('globex', ['Another page.']);
      await world.mover.move(operator, principalOf('globex'), { destination: 'pooled', signal: never });
    } finally {
      isMoving = false;
      await readers;
    }
  });

  it('is moved by one process at a time, and not at all when it is there', async () => {
    expect(await world.mover.move(operator, principalOf('globex'), { destination: 'pooled', signal: never })).toBeUndefined();
    const both = await Promise.allSettled([
      world.mover.move(operator, principalOf('globex'), { destination: 'siloed', signal: never }),
      world.mover.move(operator, principalOf('globex'), { destination: 'siloed', signal: never }),
    ]);
    expect(both.map(({ status }) => status).toSorted()).toEqual(['fulfilled', 'rejected']);
    await world.mover.move(operator, principalOf('globex'), { destination: 'pooled', signal: never });
  });
});
