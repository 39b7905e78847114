/** What a tenant that ingests at full speed does to another's searches, over HTTP through the whole product. */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { readEvaluationSet } from '../retrieval/evaluation-set.ts';
import { storeOf } from './bench-store.ts';
import type { IngestingLoad } from './ingesting-worker.ts';
import type { MeasuredBulkhead } from './measured-bulkhead.ts';
import { type Percentiles, percentilesOf } from './percentiles.ts';

export interface NeighbourCost {
  readonly quiet: Percentiles;
  readonly busy: Percentiles;
  /** Files that the neighbour had indexed meanwhile: without any, nothing was measured. */
  readonly indexedMeanwhile: number;
}

export async function measureNeighbour(bulkhead: MeasuredBulkhead, searches: number): Promise<NeighbourCost> {
  const { documents, questions } = readEvaluationSet('xquad-en');
  for (const id of ['quiet', 'busy']) await bulkhead.operator.send('POST', '/admin/v1/tenants', { id, tier: 'bench' });
  const quiet = await bulkhead.clientOf('quiet');
  const storeId = await storeOf(quiet, [documents.join('\n\n')]);
  const search = async (count: number) => {
    const times: number[] = [];
    for (let index = 0; index < count; index++) {
      const query = questions[index % questions.length]?.text ?? '';
      times.push((await quiet.send('POST', `/v1/vector_stores/${storeId}/search`, { query })).ms);
    }
    return times;
  };
  await search(50);
  const before = await search(searches / 2);
  const neighbour = await keepIngesting({ baseUrl: bulkhead.baseUrl, key: await bulkhead.keyOf('busy') });
  const busy = await search(searches);
  const indexedMeanwhile = await neighbour.stop();
  const after = await search(searches / 2);
  return { quiet: percentilesOf([...before, ...after]), busy: percentilesOf(busy), indexedMeanwhile };
}

/** Uploads in a thread of its own, so that the clock of the searches does not wait for it. */
async function keepIngesting(load: IngestingLoad) {
  const worker = new Worker(new URL('./ingesting-worker.ts', import.meta.url), { workerData: load });
  await once(worker, 'message');
  return {
    async stop(): Promise<number> {
      const completed = once(worker, 'message');
      worker.postMessage('stop');
      const [count] = await completed;
      await once(worker, 'exit');
      return Number(count);
    },
  };
}
