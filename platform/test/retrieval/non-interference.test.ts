import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Sql } from '../../src/adapters/postgres/database.ts';
import { armsOf, type CandidateRow, candidateStatement, type SearchedStore } from '../../src/adapters/postgres/documents-search-arms.ts';
import { ResidentPartitions } from '../../src/adapters/postgres/resident-partitions.ts';
import { systemClock } from '../../src/primitives/clock.ts';
import { seededRandom } from '../../src/primitives/random.ts';
import { fuse } from '../../src/rag/hybrid-ranking.ts';
import { silentLogger } from '../../src/telemetry/logger.ts';
import type { HybridQuery } from '../../src/tenancy/capabilities.ts';
import { chunking, fingerprint, Library, question } from './library.ts';

/**
 * Non-interference: whatever all other tenants do, one tenant's ids and scores stay the same to the last bit. Stronger than "no foreign
 * row": a shared statistic or graph answers with own rows only and still tells how dense the neighbours are.
 */
const seed = 4_711;
const random = seededRandom(seed);
const words =
  'rent tenant lease deposit month notice repair roof window landlord heating garden parking key term renew sublet pet noise fee'.split(
    ' ',
  );
const sentence = (count: number) => Array.from({ length: count }, () => words[Math.floor(random.next() * words.length)]).join(' ');
const documents = (count: number) =>
  Array.from({ length: count }, (_, index) => `${sentence(6 + (index % 30))} ${index % 7 === 0 ? 'arbitration' : ''}`);
const questions = Array.from({ length: 1_000 }, (_, index) => `${sentence(1 + (index % 6))}${index % 11 === 0 ? ' arbitration' : ''}`);

/** Memory that holds nothing: everything goes through SQL. */
const nothing = new ResidentPartitions({
  bounds: { residentBytesMax: 0, residentBytesPerTenantMax: 1, residentFillsMax: 1, residentSearchesQueuedMax: 1 },
  clock: systemClock,
  logger: silentLogger,
});
let library: Library;
let storeId: string;
const others: { tenant: string; storeId: string }[] = [];
beforeAll(async () => {
  library = await Library.open({ residents: { residentBytesMax: 64 * 1_024 * 1_024 } });
  // Ids whose hash falls on the same shard as acme's come first: the closest neighbours there can be.
  const [home] = await library.truth<{ shard: number }>(`SELECT hashtext('acme') & 3 AS shard`);
  const same = await library.truth<{ id: string }>(
    `SELECT 'n-' || n AS id FROM generate_series(1, 60) n WHERE hashtext('n-' || n) & 3 = $1 LIMIT 3`,
    [home?.shard],
  );
  storeId = await library.storeOf('acme', documents(60), (index) => ({ year: 2_000 + (index % 5) }));
  for (const tenant of [...same.map((row) => row.id), 'globex'])
    others.push({ tenant, storeId: await library.storeOf(tenant, documents(25)) });
}, 120_000);
afterAll(() => library[Symbol.asyncDispose]());

const queryOf = (text: string, index: number): HybridQuery =>
  question(text, index % 3 === 0 ? { filter: { type: 'gte', key: 'year', value: 2_002 }, limit: 50 } : {});

/** Through SQL, or from memory once the store is there. */
async function replay(count: number, path: 'sql' | 'memory'): Promise<string[]> {
  const { vectorStores } = path === 'memory' ? library.shelves('acme') : library.shelves('acme', 'english', nothing);
  const before = library.residents.figures().hits;
  if (path === 'memory') {
    await vectorStores.search(storeId, question('rent'));
    await library.residents.settled();
  }
  const answers: string[] = [];
  for (const [index, text] of questions.slice(0, count).entries())
    answers.push(fingerprint(await vectorStores.search(storeId, queryOf(text, index))));
  if (path === 'memory') expect(library.residents.figures().hits).toBeGreaterThanOrEqual(before + count);
  return answers;
}

/** The same statement without the walls: what a forgotten filter, or one index for everybody, would answer. */
async function replayUnwalled(count: number): Promise<string[]> {
  const database = library.db.database.forTenant(library.shelves('acme').principal);
  const [store] = await library.truth<SearchedStore>(`SELECT *, false AS has_drafts FROM app.vector_store WHERE id = $1`, [storeId]);
  const answers: string[] = [];
  for (const [index, text] of questions.slice(0, count).entries()) {
    const compiled = await database.read((db: Sql) =>
      Promise.resolve(candidateStatement(store as SearchedStore, queryOf(text, index)).compile(db)),
    );
    const rows = await library.truth<CandidateRow>(compiled.sql, compiled.parameters);
    answers.push(JSON.stringify(fuse(armsOf(rows, queryOf(text, index)), queryOf(text, index))));
  }
  return answers;
}

/** Every neighbour's stores come into memory, or all of them go. */
async function othersBecome(what: 'resident' | 'absent'): Promise<void> {
  for (const { tenant, storeId: theirs } of others) {
    if (what === 'absent') library.residents.drop(library.shelves(tenant).principal.tenantId);
    else await library.shelves(tenant).vectorStores.search(theirs, question('rent'));
  }
  await library.residents.settled();
}

async function othersInsert(): Promise<void> {
  for (const { tenant } of others) await library.storeOf(tenant, documents(20));
  for (const { tenant, storeId: theirs } of others) {
    const { files, vectorStores } = library.shelves(tenant);
    const flood = await files.create({
      filename: 'flood.txt',
      purpose: 'assistants',
      body: Buffer.from('arbitration rent '.repeat(2_000)),
    });
    await vectorStores.attachFile(theirs, {
      fileId: flood.id,
      attributes: {},
      chunking: { ...chunking, type: 'static', maxChunkTokens: 100, overlapTokens: 50 },
    });
  }
  await library.worker.drain();
}

async function othersDelete(): Promise<void> {
  for (const { tenant, storeId: theirs } of others) {
    const { files, vectorStores } = library.shelves(tenant);
    const { items } = await files.list({ limit: 10, order: 'asc' });
    for (const file of items) await files.delete(file.id);
    if (tenant === 'globex') await vectorStores.delete(theirs);
  }
}

/** Every neighbour's vectors become others, in place. */
async function othersReembed(): Promise<void> {
  await library.truth(
    `UPDATE app.embedding_384 SET embedding = (SELECT array_agg(sin(n * (ordinal + file_no + 1)))::public.vector FROM generate_series(1, 384) n) WHERE tenant_id <> 'acme'`,
  );
  await library.truth('VACUUM ANALYZE');
}

test(`1,000 hybrid searches answer bit for bit the same, from memory and through SQL, after all other tenants inserted, deleted and re-embedded (seed ${seed})`, async () => {
  const before = await replay(1_000, 'sql');
  const unwalledBefore = await replayUnwalled(60);
  expect(new Set(before).size).toBeGreaterThan(500);
  await othersBecome('resident');
  expect(await replay(1_000, 'memory')).toEqual(before);
  await othersInsert();
  expect(await replay(250, 'sql')).toEqual(before.slice(0, 250));
  expect(await replay(250, 'memory')).toEqual(before.slice(0, 250));
  const unwalledAfter = await replayUnwalled(60);
  await othersDelete();
  await othersBecome('absent');
  expect(await replay(250, 'memory')).toEqual(before.slice(0, 250));
  library.residents.drop(library.shelves('acme').principal.tenantId);
  await othersReembed();
  expect(await replay(250, 'sql')).toEqual(before.slice(0, 250));
  expect(await replay(1_000, 'memory')).toEqual(before);
  // The planted fault: without the walls the statistics are everybody's, and the same replay tells the neighbours' doings.
  expect(unwalledAfter).not.toEqual(unwalledBefore);
}, 400_000);
