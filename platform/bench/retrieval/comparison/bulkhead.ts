/**
 * This product: the tenant's own vector stores, filled by the shelf that ingestion writes to (same rows, same short transactions) and asked through the
 * search that serves tenants. On the embedded engine, or on a server when the process runs for one.
 */
import { PostgresIngestionShelf } from '../../../src/adapters/postgres/documents-ingestion.ts';
import { appendChunksMax } from '../../../src/rag/ingest.ts';
import type { HybridQuery, VectorStoreCabinet } from '../../../src/tenancy/capabilities.ts';
import { Library } from '../../../test/retrieval/library.ts';
import type { SearchSystem } from './system.ts';
import type { BenchTenant, Question, Workload } from './workload.ts';

/** Of a file's chunks; a document of this size is a book. */
const chunksPerFile = 512;
const chunking = { type: 'auto', maxChunkTokens: 800, overlapTokens: 400 } as const;
/** Room for all that is asked at 768 dimensions; the largest tenant fits. */
const residentBytesMax = 3 * 1_024 ** 3;
const residentBytesPerTenantMax = 1_024 ** 3;
/** Tenants that are loaded at once. The embedded engine does one thing at a time. */
const loaders = { embedded: 1, server: 4 } as const;

interface LoadedStore {
  readonly vectorStores: VectorStoreCabinet;
  readonly id: string;
}

export interface BulkheadOptions {
  readonly engine: 'embedded' | 'server';
  readonly dimensions: number;
  readonly dataDir?: string;
  readonly model?: string;
}

export interface BulkheadSystem extends SearchSystem {
  /** Ids of the tenants' stores, by the tenant's rank. */
  storeIds(): ReadonlyMap<number, string>;
}

export async function openBulkhead({
  engine,
  dimensions,
  dataDir,
  model = `bench-${dimensions}`,
}: BulkheadOptions): Promise<BulkheadSystem> {
  const library = await Library.open({
    embedding: { model, dimensions },
    residents: { residentBytesMax, residentBytesPerTenantMax },
    ...(dataDir !== undefined && { dataDir }),
  });
  const stores = new Map<number, LoadedStore>();
  const ask = async (question: Question, changes: Pick<HybridQuery, 'text' | 'weights' | 'limit'>) => {
    const store = stores.get(question.tenant.rank);
    const found = await store?.vectorStores.search(store.id, { embedding: question.vector, embeddingModel: model, ...changes });
    if (found === undefined) throw new Error('the tenant was not loaded');
    return found.map(({ filename, ordinal }) => Number.parseInt(filename, 10) * chunksPerFile + ordinal);
  };
  return {
    async load(workload) {
      const left = [...workload.tenants];
      const loader = async () => {
        for (let tenant = left.shift(); tenant !== undefined; tenant = left.shift()) {
          stores.set(tenant.rank, await loadTenant(library, workload, tenant));
        }
      };
      await Promise.all(Array.from({ length: loaders[engine] }, loader));
      await library.truth('VACUUM ANALYZE');
    },
    // The nearest vectors alone: no word to look up, and no weight for one.
    search: (question, limit) => ask(question, { text: '', limit, weights: { dense: 1, lexical: 0 } }),
    hybrid: (question, limit) => ask(question, { text: question.text, limit, weights: { dense: 1, lexical: 1 } }),
    settled: () => library.residents.settled(),
    heldMiB: () => library.residents.figures().bytes / 2 ** 20,
    async diskMiB() {
      const [row] = await library.truth<{ readonly bytes: string }>('SELECT pg_database_size(current_database()) AS bytes');
      return Number(row?.bytes) / 2 ** 20;
    },
    storeIds: () => new Map([...stores].map(([rank, { id }]) => [rank, id])),
    [Symbol.asyncDispose]: () => library[Symbol.asyncDispose](),
  };
}

export async function loadTenant(library: Library, workload: Workload, tenant: BenchTenant): Promise<LoadedStore> {
  const { files, vectorStores, principal } = library.shelves(tenant.name);
  const { id } = await vectorStores.create({ name: tenant.name, metadata: {} });
  const shelf = new PostgresIngestionShelf(library.db.database.forTenant(principal));
  for (let first = 0; first < tenant.size; first += chunksPerFile) {
    const file = await files.create({ filename: `${first / chunksPerFile}.txt`, purpose: 'assistants', body: Buffer.from('vectors') });
    await vectorStores.attachFile(id, { fileId: file.id, attributes: { part: first / chunksPerFile }, chunking });
    const draft = await shelf.begin({ storeId: id, fileId: file.id });
    const end = Math.min(tenant.size, first + chunksPerFile);
    for (let from = first; from < end; from += appendChunksMax) {
      await draft?.append(chunksOf(workload, tenant, { first, from, to: Math.min(end, from + appendChunksMax) }));
    }
    if ((await draft?.publish()) !== true) throw new Error('a file of the benchmark was not published');
  }
  return { vectorStores, id };
}

function chunksOf(
  workload: Workload,
  tenant: BenchTenant,
  { first, from, to }: { readonly first: number; readonly from: number; readonly to: number },
) {
  const { dimensions } = workload.options;
  const vectors = workload.vectorsOf(tenant, from, to);
  return Array.from({ length: to - from }, (_, index) => ({
    ordinal: from + index - first,
    text: workload.textOf(tenant, from + index),
    embedding: vectors.slice(index * dimensions, (index + 1) * dimensions),
  }));
}
