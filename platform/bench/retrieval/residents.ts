/**
 * Searches of one hot store on the embedded engine, from memory and through SQL: `npm run bench -- residents [chunks...] [--dimensions n] [--full]`. Text is recombined
 * from XQuAD, vectors are random; each answer is compared with the other path's.
 */
import { parseArgs } from 'node:util';
import { PostgresIngestionShelf } from '../../src/adapters/postgres/documents-ingestion.ts';
import { ResidentPartitions } from '../../src/adapters/postgres/resident-partitions.ts';
import { assert } from '../../src/primitives/assert.ts';
import { systemClock } from '../../src/primitives/clock.ts';
import { seededRandom } from '../../src/primitives/random.ts';
import { appendChunksMax } from '../../src/rag/ingest.ts';
import { silentLogger } from '../../src/telemetry/logger.ts';
import type { HybridQuery } from '../../src/tenancy/capabilities.ts';
import { chunking, Library } from '../../test/retrieval/library.ts';
import { milliseconds, table, whole } from '../support/table.ts';
import { readEvaluationSet } from './evaluation-set.ts';

const tenant = 'measured';
const searches = 300;
const chunksPerFile = 200;
const mebibyte = 1_024 * 1_024;
const set = readEvaluationSet('xquad-en');
const random = seededRandom(20_261_127);
const sentences = set.documents.flatMap((text) => text.split(/(?<=\.) /));

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { dimensions: { type: 'string', default: '384' }, full: { type: 'boolean', default: false } },
});
const dimensions = Number(values.dimensions);
const embeddingModel = `bench-${dimensions}`;
const sizes = positionals.length > 0 ? positionals.map(Number) : [100, 1_000, ...(values.full ? [10_000, 50_000] : [])];
const rows: (string | number)[][] = [];
for (const chunks of sizes) rows.push(await measure(chunks));
const header = [
  'chunks',
  'vector p50',
  'p99',
  'hybrid p50',
  'p99',
  'SQL vector p50',
  'SQL hybrid p50',
  'cold first',
  'fill',
  'MiB',
  'x vectors',
];
process.stdout.write(`\n${dimensions} dimensions, milliseconds\n${table(header, rows)}\n`);

async function measure(chunks: number): Promise<(string | number)[]> {
  await using library = await Library.open({ embedding: { model: embeddingModel, dimensions } });
  const storeId = await load(library, chunks);
  await using residents = new ResidentPartitions({
    bounds: {
      residentBytesMax: 1_024 * mebibyte,
      residentBytesPerTenantMax: 1_024 * mebibyte,
      residentFillsMax: 2,
      residentSearchesQueuedMax: 256,
    },
    clock: systemClock,
    logger: silentLogger,
  });
  const memory = library.shelves(tenant, 'english', residents).vectorStores;
  const sql = library.shelves(tenant).vectorStores;
  await sql.search(storeId, vectorQuery());
  const coldMs = await timed(() => memory.search(storeId, hybridQuery(0)));
  const fillMs = await timed(() => residents.settled());
  for (let index = 0; index < 20; index++) {
    const query = hybridQuery(index);
    const [ours, theirs] = [await memory.search(storeId, query), await sql.search(storeId, query)];
    assert(JSON.stringify(ours) === JSON.stringify(theirs), 'both paths give the same answer');
  }
  const before = residents.figures().hits;
  const vector = await percentiles(() => memory.search(storeId, vectorQuery()));
  const hybrid = await percentiles((index) => memory.search(storeId, hybridQuery(index)));
  assert(residents.figures().hits === before + 2 * searches, 'every search was answered from memory');
  const slow = Math.min(searches, 40);
  const vectorSql = await percentiles(() => sql.search(storeId, vectorQuery()), slow);
  const hybridSql = await percentiles((index) => sql.search(storeId, hybridQuery(index)), slow);
  const { bytes } = residents.figures();
  const shown = [vector.p50, vector.p99, hybrid.p50, hybrid.p99, vectorSql.p50, hybridSql.p50, coldMs, fillMs].map(milliseconds);
  return [whole(chunks), ...shown, (bytes / mebibyte).toFixed(1), (bytes / (chunks * dimensions * 4)).toFixed(3)];
}

function vectorQuery(): HybridQuery {
  return { text: '', embedding: randomVector(), embeddingModel, limit: 10, weights: { dense: 1, lexical: 0 } };
}

function hybridQuery(index: number): HybridQuery {
  return {
    text: set.questions[index % set.questions.length]?.text ?? '',
    embedding: randomVector(),
    embeddingModel,
    limit: 10,
    weights: { dense: 1, lexical: 1 },
  };
}

function randomVector(): Float32Array {
  return Float32Array.from({ length: dimensions }, () => random.next() - 0.5);
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const from = performance.now();
  await work();
  return performance.now() - from;
}

async function percentiles(
  work: (index: number) => Promise<unknown>,
  count = searches,
): Promise<{ readonly p50: number; readonly p99: number }> {
  const times: number[] = [];
  for (let index = 0; index < count; index++) times.push(await timed(() => work(index)));
  times.sort((left, right) => left - right);
  return { p50: times[Math.floor(count * 0.5)] ?? 0, p99: times[Math.floor(count * 0.99)] ?? 0 };
}

async function load(library: Library, chunks: number): Promise<string> {
  const { files, vectorStores, principal } = library.shelves(tenant);
  const { id: storeId } = await vectorStores.create({ name: 'measured', metadata: {} });
  const shelf = new PostgresIngestionShelf(library.db.database.forTenant(principal));
  for (let from = 0; from < chunks; from += chunksPerFile) {
    const file = await files.create({ filename: `${from}.txt`, purpose: 'assistants', body: Buffer.from('vectors') });
    await vectorStores.attachFile(storeId, { fileId: file.id, attributes: { from }, chunking });
    const draft = await shelf.begin({ storeId, fileId: file.id });
    const count = Math.min(chunksPerFile, chunks - from);
    for (let first = 0; first < count; first += appendChunksMax) {
      const length = Math.min(appendChunksMax, count - first);
      await draft?.append(Array.from({ length }, (_, index) => ({ ordinal: first + index, text: paragraph(), embedding: randomVector() })));
    }
    assert((await draft?.publish()) === true, 'the file was published');
  }
  return storeId;
}

function paragraph(): string {
  return Array.from({ length: 5 }, () => sentences[Math.floor(random.next() * sentences.length)] ?? '').join(' ');
}
