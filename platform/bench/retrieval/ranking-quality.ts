/** How good a ranking is, measured through the product's own search: the statement that serves tenants, not a model of it. */
import { embedText } from '../../src/adapters/hashed-embedder/embed-text.ts';
import { PostgresIngestionShelf } from '../../src/adapters/postgres/documents-ingestion.ts';
import { appendChunksMax } from '../../src/rag/ingest.ts';
import { standInDenseWeight } from '../../src/rag/retrieve.ts';
import type { HybridQuery, VectorStoreCabinet } from '../../src/tenancy/capabilities.ts';
import { dimensions, type Library } from '../../test/retrieval/library.ts';
import type { EvaluationSet } from './evaluation-set.ts';

/** nDCG@10, 0 to 1, of each arm alone and of both fused as the product fuses them by default. */
export interface RankingQuality {
  readonly lexical: number;
  readonly hashed: number;
  readonly fused: number;
}

export const measuredWeights = {
  lexical: { dense: 0, lexical: 1 },
  hashed: { dense: 1, lexical: 0 },
  fused: { dense: standInDenseWeight, lexical: 1 },
} as const satisfies Record<keyof RankingQuality, HybridQuery['weights']>;

export async function measureQuality(library: Library, set: EvaluationSet, tenant: string = set.name): Promise<RankingQuality> {
  const { vectorStores, storeId } = await indexDocuments(library, tenant, set);
  const ask = (weights: HybridQuery['weights']) => meanNdcg(vectorStores, storeId, { set, weights });
  return {
    lexical: await ask(measuredWeights.lexical),
    hashed: await ask(measuredWeights.hashed),
    fused: await ask(measuredWeights.fused),
  };
}

/** One file whose n-th chunk is the n-th document, so that chunking does not enter the measurement. */
export async function indexDocuments(library: Library, tenant: string, set: Pick<EvaluationSet, 'documents' | 'language'>) {
  const { files, vectorStores, principal } = library.shelves(tenant, set.language);
  const store = await vectorStores.create({ name: tenant, metadata: {} });
  const file = await files.create({ filename: 'set.txt', purpose: 'assistants', body: Buffer.from('set') });
  const chunking = { type: 'auto', maxChunkTokens: 800, overlapTokens: 400 } as const;
  await vectorStores.attachFile(store.id, { fileId: file.id, attributes: {}, chunking });
  const draft = await new PostgresIngestionShelf(library.db.database.forTenant(principal)).begin({ storeId: store.id, fileId: file.id });
  for (let first = 0; first < set.documents.length; first += appendChunksMax) {
    const batch = set.documents.slice(first, first + appendChunksMax);
    await draft?.append(batch.map((text, index) => ({ ordinal: first + index, text, embedding: embedText(text, dimensions) })));
  }
  await draft?.publish();
  return { vectorStores, storeId: store.id };
}

async function meanNdcg(
  vectorStores: VectorStoreCabinet,
  storeId: string,
  { set, weights }: { readonly set: EvaluationSet; readonly weights: HybridQuery['weights'] },
): Promise<number> {
  let sum = 0;
  for (const { text, relevant } of set.questions) {
    const found = await vectorStores.search(storeId, {
      text,
      embedding: embedText(text, dimensions),
      embeddingModel: 'local-hash-384',
      limit: 10,
      weights,
    });
    sum += ndcg(found?.map((chunk) => chunk.ordinal) ?? [], relevant);
  }
  return sum / set.questions.length;
}

/** Normalised discounted cumulative gain with binary relevance, Järvelin and Kekäläinen, TOIS 2002. */
export function ndcg(ranking: readonly number[], relevant: readonly number[]): number {
  const golden = new Set(relevant);
  const gainAt = (rank: number) => 1 / Math.log2(rank + 2);
  const gained = ranking.slice(0, 10).reduce((sum, document, rank) => sum + (golden.has(document) ? gainAt(rank) : 0), 0);
  const ideal = Array.from({ length: Math.min(10, golden.size) }, (_, rank) => gainAt(rank)).reduce((sum, gain) => sum + gain, 0);
  return gained / ideal;
}
