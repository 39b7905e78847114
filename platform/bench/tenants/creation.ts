/** What it costs to create a tenant, over HTTP, and to ask one that was idle. */
import { residentMiB } from '../support/machine.ts';
import type { MeasuredBulkhead } from './measured-bulkhead.ts';
import { type Percentiles, percentilesOf } from './percentiles.ts';

export interface CreationCost {
  readonly pooled: Percentiles;
  /** The first of a process, whose template was there or not. */
  readonly firstSiloedMs: number;
  readonly siloed: Percentiles;
  /** First and following reads of siloed and pooled tenants. */
  readonly firstReadMs: number;
  readonly readMs: { readonly pooled: Percentiles; readonly siloed: Percentiles };
  /** Memory of the process for each silo that is open. */
  readonly siloMiB: number;
}

const reads = 100;

/** @param siloes - at most `bounds.siloDatabasesOpenMax`, so that each stays open. */
export async function measureCreation(bulkhead: MeasuredBulkhead, pooled: number, siloes: number): Promise<CreationCost> {
  const create = async (id: string, isolation: string) =>
    (await bulkhead.operator.send('POST', '/admin/v1/tenants', { id, tier: 'bench', isolation })).ms;
  // First of all, and it leaves the template of all silos behind: making that beside the pooled ones would be in their times.
  const before = residentMiB(bulkhead.pid);
  const firstSiloedMs = await create('siloed-first', 'siloed');
  const pooledMs: number[] = [];
  for (let index = 0; index < pooled; index++) pooledMs.push(await create(`pooled-${index}`, 'pooled'));
  const siloedMs: number[] = [];
  for (let index = 0; index < siloes; index++) siloedMs.push(await create(`siloed-${index}`, 'siloed'));
  const siloMiB = (residentMiB(bulkhead.pid) - before) / (siloes + 1);
  const [firstReadMs, ...siloedReads] = await timesOf(bulkhead, 'siloed-first');
  const [, ...pooledReads] = await timesOf(bulkhead, 'pooled-0');
  return {
    pooled: percentilesOf(pooledMs),
    firstSiloedMs,
    siloed: percentilesOf(siloedMs),
    firstReadMs: firstReadMs ?? Number.NaN,
    readMs: { pooled: percentilesOf(pooledReads), siloed: percentilesOf(siloedReads) },
    siloMiB,
  };
}

async function timesOf(bulkhead: MeasuredBulkhead, tenant: string): Promise<readonly number[]> {
  const client = await bulkhead.clientOf(tenant);
  const times: number[] = [];
  for (let index = 0; index <= reads; index++) times.push((await client.send('GET', '/v1/vector_stores')).ms);
  return times;
}
