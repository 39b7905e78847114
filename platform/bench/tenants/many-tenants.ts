/** Searches of one small tenant while there are ten tenants, and while there are thousands. */
import { PostgresTenantDirectory } from '../../src/adapters/postgres/tenant-directory.ts';
import { systemClock } from '../../src/primitives/clock.ts';
import { mintOperatorScope } from '../../src/tenancy/mint-operator-scope.ts';
import { Library } from '../../test/retrieval/library.ts';
import { tenantId } from '../../test/support/embedded-database.ts';
import { loadTenant } from '../retrieval/comparison/bulkhead.ts';
import { type Question, Workload } from '../retrieval/comparison/workload.ts';
import { type Percentiles, percentilesOf } from './percentiles.ts';

export interface ManyTenants {
  readonly tenants: number;
  readonly few: Percentiles;
  readonly many: Percentiles;
  /** Of the rows of a tenant in the directory. */
  readonly creation: Percentiles;
}

const few = 10;
const vectorsOfOne = 200;
const vectorsOfOthers = 4;
const dimensions = 384;
const searches = 600;

export async function measureManyTenants(tenants: number): Promise<ManyTenants> {
  // As much as the product keeps in memory by default.
  await using library = await Library.open({ residents: { residentBytesMax: 512 * 1_024 * 1_024 } });
  const directory = new PostgresTenantDirectory(library.db.database, systemClock);
  const operator = mintOperatorScope('bench');
  const workload = new Workload({ tenants, vectors: tenants * vectorsOfOthers, dimensions, seed: 1, wordsPerChunk: 32 });
  const sized = workload.tenants.map((tenant, index) => ({ ...tenant, size: index === 0 ? vectorsOfOne : vectorsOfOthers }));
  const [one] = sized;
  if (one === undefined) throw new Error('there are no tenants');
  const creationMs: number[] = [];
  const add = async (from: number, to: number) => {
    for (const tenant of sized.slice(from, to)) {
      const started = performance.now();
      await directory.create(operator, { id: tenantId(tenant.name), name: tenant.name, tier: 'free', isolation: 'pooled', overrides: {} });
      creationMs.push(performance.now() - started);
      if (tenant !== one) await loadTenant(library, workload, tenant);
    }
  };
  const { vectorStores, id } = await loadTenant(library, workload, one);
  const questions = workload.questions(searches).map((question): Question => ({ ...question, tenant: one }));
  const search = async () => {
    const times: number[] = [];
    for (const { vector: embedding, text } of questions) {
      const from = performance.now();
      await vectorStores.search(id, { text, embedding, embeddingModel: 'local-hash-384', limit: 10, weights: { dense: 1, lexical: 1 } });
      times.push(performance.now() - from);
    }
    return times;
  };
  await add(0, few);
  await search();
  await library.residents.settled();
  const withFew = await search();
  await add(few, tenants);
  await library.truth('VACUUM ANALYZE');
  await search();
  await library.residents.settled();
  return { tenants, few: percentilesOf(withFew), many: percentilesOf(await search()), creation: percentilesOf(creationMs) };
}
