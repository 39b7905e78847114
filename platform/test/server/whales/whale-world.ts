/** A library on a real server with a keeper of its placements, and documents whose vectors lie in clusters, as those of real texts do. */
import { type PlacementBounds, type PlacementStep, PostgresPlacementKeeper } from '../../../src/adapters/postgres/placement-keeper.ts';
import { RecallWatch } from '../../../src/adapters/postgres/recall-watch.ts';
import { systemClock } from '../../../src/primitives/clock.ts';
import { seededRandom } from '../../../src/primitives/random.ts';
import type { Embedder } from '../../../src/rag/embed-texts.ts';
import { silentLogger } from '../../../src/telemetry/logger.ts';
import type { HybridQuery } from '../../../src/tenancy/capabilities.ts';
import { mintOperatorScope } from '../../../src/tenancy/mint-operator-scope.ts';
import { chunking, dimensions, type Library } from '../../retrieval/library.ts';
import { principalOf } from '../../support/embedded-database.ts';

export const operator = mintOperatorScope('test');
export const smallBounds: PlacementBounds = {
  dedicatedChunksMin: 100,
  dedicatedShardsMax: 3,
  recallMin: 0.98,
  recallSampleQueries: 20,
  indexBuildMemoryMb: 64,
};

export interface KeeperOptions {
  readonly bounds?: Partial<PlacementBounds>;
  readonly watch?: RecallWatch;
  readonly onStep?: (step: PlacementStep) => void | Promise<void>;
}

export function keeperOf(library: Library, options: KeeperOptions = {}): PostgresPlacementKeeper {
  const { database } = library.db;
  return new PostgresPlacementKeeper({
    shared: database,
    owner: database,
    bounds: { ...smallBounds, ...options.bounds },
    watch: options.watch ?? new RecallWatch(smallBounds.recallMin, silentLogger),
    clock: systemClock,
    random: seededRandom(7),
    logger: silentLogger,
    ...(options.onStep !== undefined && { onStep: options.onStep }),
  });
}

export function sweep(keeper: PostgresPlacementKeeper, signal = new AbortController().signal): Promise<number> {
  return keeper.sweep(operator, (tenantId) => principalOf(tenantId), signal);
}

/** Clusters of vectors: the text says which, and the rest of it where in the cluster. */
const clusters = 40;
const spread = 0.6;

export const clusteredEmbedder: Embedder = { embed: (texts) => Promise.resolve(texts.map(clusteredVector)) };

export function clusteredVector(text: string): Float32Array {
  const seed = hashOf(text);
  const center = seededRandom(1_000 + (seed % clusters));
  const noise = seededRandom(seed);
  const vector = Float32Array.from({ length: dimensions }, () => center.next() - 0.5 + spread * (noise.next() - 0.5));
  const length = Math.hypot(...vector);
  return vector.map((value) => value / length);
}

function hashOf(text: string): number {
  let hash = 2_166_136_261;
  for (let index = 0; index < text.length; index++) hash = Math.imul(hash ^ text.charCodeAt(index), 16_777_619) >>> 0;
  return hash;
}

const words =
  'rent tenant lease deposit month notice repair roof window landlord heating garden parking key term renew sublet pet noise fee'.split(
    ' ',
  );

/** A document of about so many chunks, the same for the same seed. */
export function longText(seed: number, chunkCount: number): string {
  const random = seededRandom(seed);
  const sentence = () => Array.from({ length: 12 }, () => words[Math.floor(random.next() * words.length)]).join(' ');
  return Array.from({ length: chunkCount }, (_, index) => `${seed}.${index} ${sentence()} ${sentence()}.`).join('\n\n');
}

export const shortChunks = { ...chunking, type: 'static', maxChunkTokens: 32, overlapTokens: 0 } as const;

/** A store of long documents, indexed. Attributes: the document's number. */
export async function longStore(
  library: Library,
  tenant: string,
  { files, chunksEach }: { readonly files: number; readonly chunksEach: number },
): Promise<string> {
  await addTenant(library, tenant);
  const { files: cabinet, vectorStores } = library.shelves(tenant);
  const store = await vectorStores.create({ name: 'whale', metadata: {} });
  const attached = [];
  for (let index = 0; index < files; index++) {
    const file = await cabinet.create({
      filename: `long-${index}.txt`,
      purpose: 'assistants',
      body: Buffer.from(longText(index, chunksEach)),
    });
    attached.push({ fileId: file.id, attributes: { number: index, half: index % 2 === 0 ? 'even' : 'odd' }, chunking: shortChunks });
  }
  await vectorStores.createBatch(store.id, attached);
  await library.worker.drain();
  return store.id;
}

export async function addTenant(library: Library, tenant: string): Promise<void> {
  await library.truth(`INSERT INTO control.tenant (id, name, tier, created_at_ms) VALUES ($1, $1, 'free', 0) ON CONFLICT DO NOTHING`, [
    tenant,
  ]);
}

export function clusteredQuestion(text: string, changes: Partial<HybridQuery> = {}): HybridQuery {
  return {
    text,
    embedding: clusteredVector(text),
    embeddingModel: 'local-hash-384',
    limit: 10,
    weights: { dense: 1, lexical: 0.5 },
    ...changes,
  };
}

/** Rows of a tenant in each shard, table by table. */
export async function shardsOf(library: Library, tenant: string): Promise<Readonly<Record<string, Readonly<Record<string, number>>>>> {
  const counts: Record<string, Record<string, number>> = {};
  for (const table of ['chunk', 'posting', 'embedding_384']) {
    const rows = await library.truth<{ shard: number; count: string }>(
      `SELECT shard_id AS shard, count(*) FROM app.${table} WHERE tenant_id = $1 GROUP BY 1 ORDER BY 1`,
      [tenant],
    );
    counts[table] = Object.fromEntries(rows.map(({ shard, count }) => [String(shard), Number(count)]));
  }
  return counts;
}
