/**
 * `npm run bench -- whales`: one large store on a real server, before and after it has a shard and an index of its own: how long the move and the build
 * take, and what a question for the nearest vectors costs exactly and by the index. `--chunks=50000 --dimensions=384`.
 */
import { startPostgres } from '../../../scripts/services.mjs';
import { Database } from '../../src/adapters/postgres/database.ts';
import { type ApproximateSearch, approximateArms, type IndexedStore } from '../../src/adapters/postgres/documents-search-approximate.ts';
import { exactArms } from '../../src/adapters/postgres/documents-search-arms.ts';
import { migrate } from '../../src/adapters/postgres/migrations.ts';
import { type PlacementStep, PostgresPlacementKeeper } from '../../src/adapters/postgres/placement-keeper.ts';
import { RecallWatch } from '../../src/adapters/postgres/recall-watch.ts';
import { vectorText } from '../../src/adapters/postgres/vector-text.ts';
import { systemClock } from '../../src/primitives/clock.ts';
import { seededRandom } from '../../src/primitives/random.ts';
import { silentLogger } from '../../src/telemetry/logger.ts';
import type { HybridQuery } from '../../src/tenancy/capabilities.ts';
import { mintOperatorScope } from '../../src/tenancy/mint-operator-scope.ts';
import { sql } from '../../test/retrieval/library.ts';
import { principalOf } from '../../test/support/embedded-database.ts';
import { choosePinning, machineFacts } from '../support/machine.ts';
import { machineLine, writeResults } from '../support/report.ts';
import { milliseconds, table, whole } from '../support/table.ts';
import { Workload } from './comparison/workload.ts';

const chunks = numberOption('chunks', 50_000);
const dimensions = numberOption('dimensions', 384);
const filesCount = 100;
const postingsPerChunk = 20;
const questionCount = 200;
const tenant = 'bench-00000';

function numberOption(name: string, otherwise: number): number {
  const given = process.argv.find((argument) => argument.startsWith(`--${name}=`));
  return given === undefined ? otherwise : Number(given.slice(name.length + 3));
}

const workload = new Workload({ tenants: 1, vectors: chunks, dimensions, seed: 11, wordsPerChunk: 1 });
const principal = principalOf(tenant);
const watch = new RecallWatch(0, silentLogger);
const search: ApproximateSearch = {
  tenantId: principal.tenantId,
  chunksMin: 1,
  scanTuplesMax: 200_000,
  shadowShare: 0,
  random: seededRandom(1),
  watch,
};

async function fill(database: Database): Promise<void> {
  await database.withClient(async (client) => {
    await client.query(`INSERT INTO control.tenant (id, name, tier, created_at_ms) VALUES ($1, $1, 'free', 0)`, [tenant]);
    await client.query(`SELECT set_config('app.tenant_id', $1, false)`, [tenant]);
    await client.query(
      `INSERT INTO app.vector_store (id, store_no, name, metadata, created_at_ms, last_active_at_ms, embedding_model, embedding_dimensions, language, chunk_count, next_file_no)
       VALUES ('vs_bench', 1, 'bench', '{}', 0, 0, 'bench', $1, 'english', $2, $3)`,
      [dimensions, chunks, filesCount + 1],
    );
    await client.query(
      `INSERT INTO app.file (id, filename, purpose, bytes, sha256, created_at_ms) SELECT 'file-' || n, 'f', 'assistants', 0, '', 0 FROM generate_series(1, $1::int) n`,
      [filesCount],
    );
    await client.query(
      `INSERT INTO app.vector_store_file (store_no, file_no, file_id, status, attributes, chunking_type, max_chunk_tokens, overlap_tokens, created_at_ms, chunk_count)
       SELECT 1, n, 'file-' || n, 'completed', '{}', 'auto', 800, 400, 0, $2::int / $1::int FROM generate_series(1, $1::int) n`,
      [filesCount, chunks],
    );
    await fillRows(client);
    await client.query(`SELECT set_config('app.tenant_id', '', false)`);
    await client.query('VACUUM ANALYZE');
  });
}

async function fillRows(client: { query(text: string, values?: unknown[]): Promise<unknown> }): Promise<void> {
  const [bench] = workload.tenants;
  if (bench === undefined) throw new Error('the workload has no tenant');
  const perFile = Math.floor(chunks / filesCount);
  const atOnce = 250;
  for (let from = 0; from < perFile * filesCount; from += atOnce) {
    const to = Math.min(from + atOnce, perFile * filesCount);
    const vectors = workload.vectorsOf(bench, from, to);
    const texts = Array.from({ length: to - from }, (_, index) =>
      vectorText(vectors.subarray(index * dimensions, (index + 1) * dimensions)),
    );
    await client.query(
      `INSERT INTO app.embedding_${dimensions} (shard_id, store_no, file_no, ordinal, embedding)
       SELECT app.home_shard(), 1, 1 + ($1::int + n - 1) / $2::int, ($1::int + n - 1) % $2::int, v::public.vector FROM unnest($3::text[]) WITH ORDINALITY AS fresh (v, n)`,
      [from, perFile, texts],
    );
  }
  await client.query(
    `INSERT INTO app.posting (shard_id, store_no, file_no, ordinal, term_count, frequency, lexeme)
     SELECT app.home_shard(), 1, f, o, $3::int, 1, 'w' || (f * 7919 + o * 104729 + w * 31) % 5000
       FROM generate_series(1, $1::int) f, generate_series(0, $2::int - 1) o, generate_series(1, $3::int) w`,
    [filesCount, perFile, postingsPerChunk],
  );
}

const queries: readonly HybridQuery[] = workload.questions(questionCount).map(({ vector }) => ({
  text: '',
  embedding: vector,
  embeddingModel: 'bench',
  limit: 10,
  weights: { dense: 1, lexical: 0 },
}));

interface Measured {
  readonly p50: number;
  readonly p99: number;
  readonly answers: readonly (readonly string[])[];
}

async function measure(database: Database, isApproximate: boolean): Promise<Measured> {
  const times: number[] = [];
  const answers: string[][] = [];
  const scope = database.forTenant(principal);
  for (const query of queries) {
    const found = await scope.read(async (db) => {
      const store = await storeRow(database);
      await sql`SELECT set_config('enable_seqscan', 'off', true), set_config('jit', 'off', true)`.execute(db);
      const beganMs = performance.now();
      const arms = isApproximate ? await approximateArms(db, { store, query }, search) : await exactArms(db, store, query);
      times.push(performance.now() - beganMs);
      return arms?.dense ?? [];
    });
    answers.push(found.slice(0, 10).map(({ fileNo, ordinal }) => `${fileNo}:${ordinal}`));
  }
  const sorted = times.toSorted((left, right) => left - right);
  return { p50: at(sorted, 0.5), p99: at(sorted, 0.99), answers };
}

async function storeRow(database: Database): Promise<IndexedStore> {
  const { rows } = await database.withClient((client) => client.query<IndexedStore>('SELECT *, false AS has_drafts FROM app.vector_store'));
  const [row] = rows;
  if (row === undefined) throw new Error('there is no store');
  return row;
}

function at(sorted: readonly number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
}

function recallOf(exact: Measured, found: Measured): number {
  const shares = exact.answers.map(
    (wanted, index) => wanted.filter((place) => found.answers[index]?.includes(place)).length / wanted.length,
  );
  return shares.reduce((sum, share) => sum + share, 0) / shares.length;
}

const server = await startPostgres();
try {
  const database = new Database({ connection: { url: server.url }, poolSize: 4, queryTimeoutMs: 3_600_000 });
  await migrate(database);
  await fill(database);
  const before = await measure(database, false);
  const stepsMs = new Map<PlacementStep, number>();
  const beganMs = performance.now();
  const keeper = new PostgresPlacementKeeper({
    shared: database,
    owner: database,
    bounds: {
      dedicatedChunksMin: Math.min(20_000, chunks),
      dedicatedShardsMax: 10,
      recallMin: 0.98,
      recallSampleQueries: 100,
      indexBuildMemoryMb: 256,
    },
    watch,
    clock: systemClock,
    random: seededRandom(2),
    logger: silentLogger,
    onStep: (step) => void stepsMs.set(step, performance.now() - beganMs),
  });
  await keeper.sweep(mintOperatorScope('bench'), (tenantId) => principalOf(tenantId), new AbortController().signal);
  const store = await storeRow(database);
  const exact = await measure(database, false);
  const near = await measure(database, true);
  const seconds = (from: PlacementStep, to: PlacementStep) => (((stepsMs.get(to) ?? 0) - (stepsMs.get(from) ?? 0)) / 1_000).toFixed(1);
  const found = {
    chunks,
    dimensions,
    postings: chunks * postingsPerChunk,
    moveSeconds: seconds('begun', 'finished'),
    buildSeconds: seconds('finished', 'built'),
    measureSeconds: seconds('built', 'measured'),
    efSearch: store.index_ef_search,
    recallAtBuild: (store as IndexedStore & { readonly index_recall: number }).index_recall,
    recall: recallOf(exact, near),
    pooledExactMs: { p50: before.p50, p99: before.p99 },
    exactMs: { p50: exact.p50, p99: exact.p99 },
    approximateMs: { p50: near.p50, p99: near.p99 },
  };
  const facts = machineFacts(choosePinning());
  process.stdout.write(`${machineLine(facts)}\n\n`);
  process.stdout.write(
    `${table(
      [
        'chunks',
        'dimensions',
        'move s',
        'build s',
        'measure s',
        'ef',
        'recall@10',
        'exact p50 ms',
        'exact p99 ms',
        'index p50 ms',
        'index p99 ms',
      ],
      [
        [
          whole(chunks),
          dimensions,
          found.moveSeconds,
          found.buildSeconds,
          found.measureSeconds,
          found.efSearch ?? '-',
          found.recall.toFixed(4),
          milliseconds(exact.p50),
          milliseconds(exact.p99),
          milliseconds(near.p50),
          milliseconds(near.p99),
        ],
      ],
    )}\n`,
  );
  process.stdout.write(`${writeResults(`whales-${dimensions}`, facts, found)}\n`);
  await database.close();
} finally {
  await server.stop();
}
