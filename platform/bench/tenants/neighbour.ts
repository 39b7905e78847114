/** What a tenant that ingests at full speed does to another's searches, over HTTP through the whole product. */
import { setTimeout as wait } from 'node:timers/promises';
import { readEvaluationSet } from '../retrieval/evaluation-set.ts';
import type { Client, MeasuredBulkhead } from './measured-bulkhead.ts';
import { type Percentiles, percentilesOf } from './percentiles.ts';

export interface NeighbourCost {
  readonly quiet: Percentiles;
  readonly busy: Percentiles;
  /** Files that the neighbour had indexed meanwhile: without any, nothing was measured. */
  readonly indexedMeanwhile: number;
}

const filesAtOnce = 6;
const pagesPerFile = 40;

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
  const neighbour = await keepIngesting(await bulkhead.clientOf('busy'), documents);
  const busy = await search(searches);
  const indexedMeanwhile = await neighbour.stop();
  const after = await search(searches / 2);
  return { quiet: percentilesOf([...before, ...after]), busy: percentilesOf(busy), indexedMeanwhile };
}

/** Uploads while earlier files are indexed, so that there is always more to do. */
async function keepIngesting(client: Client, documents: readonly string[]) {
  const storeId = await storeOf(client, []);
  let [isOn, uploaded] = [true, 0];
  const upload = async () => {
    while (isOn) {
      const pages = Array.from({ length: pagesPerFile }, (_, page) => documents[(uploaded * 7 + page) % documents.length]);
      await attach(client, storeId, `${uploaded++} ${pages.join('\n\n')}`);
      while (isOn && (await inProgress(client, storeId)) >= filesAtOnce) await wait(50);
    }
  };
  const uploading = upload();
  // Heard by whoever stops it; a failure meanwhile must not end the process before the rest is closed.
  uploading.catch(() => {});
  while ((await inProgress(client, storeId)) === 0) await wait(10);
  return {
    async stop(): Promise<number> {
      isOn = false;
      const { completed } = await countsOf(client, storeId);
      await uploading;
      while ((await inProgress(client, storeId)) > 0) await wait(100);
      return completed;
    },
  };
}

async function storeOf(client: Client, texts: readonly string[]): Promise<string> {
  const { body } = await client.send('POST', '/v1/vector_stores', { name: 'bench' });
  const storeId = String(body['id']);
  for (const text of texts) await attach(client, storeId, text);
  while ((await inProgress(client, storeId)) > 0) await wait(50);
  return storeId;
}

async function attach(client: Client, storeId: string, text: string): Promise<void> {
  const form = new FormData();
  form.set('purpose', 'assistants');
  form.set('file', new File([text], 'page.txt'));
  const { body } = await client.send('POST', '/v1/files', form);
  await client.send('POST', `/v1/vector_stores/${storeId}/files`, { file_id: body['id'] });
}

async function inProgress(client: Client, storeId: string): Promise<number> {
  return (await countsOf(client, storeId)).in_progress;
}

async function countsOf(client: Client, storeId: string) {
  const { body } = await client.send('GET', `/v1/vector_stores/${storeId}`);
  return body['file_counts'] as { readonly completed: number; readonly in_progress: number };
}
