/** A tenant that uploads while earlier files are indexed, so that there is always more to do. Says when it has begun; told to stop, says how many files were indexed. */
import { setTimeout as wait } from 'node:timers/promises';
import { parentPort, workerData } from 'node:worker_threads';
import { readEvaluationSet } from '../retrieval/evaluation-set.ts';
import { attach, countsOf, inProgress, storeOf } from './bench-store.ts';
import { clientFor } from './measured-bulkhead.ts';

export interface IngestingLoad {
  readonly baseUrl: string;
  readonly key: string;
}

const filesAtOnce = 6;
const pagesPerFile = 40;

const { baseUrl, key } = workerData as IngestingLoad;
const { documents } = readEvaluationSet('xquad-en');
const client = clientFor(baseUrl, key);
const storeId = await storeOf(client, []);
let isOn = true;
const told = new Promise((resolve) => parentPort?.once('message', resolve));
const completed = told.then(async () => {
  isOn = false;
  return (await countsOf(client, storeId)).completed;
});
let hasBegun = false;
for (let uploaded = 0; isOn; ) {
  const pages = Array.from({ length: pagesPerFile }, (_, page) => documents[(uploaded * 7 + page) % documents.length]);
  await attach(client, storeId, `${uploaded++} ${pages.join('\n\n')}`);
  if (!hasBegun) parentPort?.postMessage('begun');
  hasBegun = true;
  while (isOn && (await inProgress(client, storeId)) >= filesAtOnce) await wait(50);
}
const count = await completed;
while ((await inProgress(client, storeId)) > 0) await wait(100);
parentPort?.postMessage(count);
