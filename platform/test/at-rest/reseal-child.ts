/** Seals content anew in the data directory of its first argument until it has nothing to do, or kills itself at the n-th time of a step. */
import type { ResealStep } from '../../src/adapters/postgres/resealer.ts';
import { Library } from '../retrieval/library.ts';

const [dataDir = '', deadly = '', times = '1'] = process.argv.slice(2);
let left = Number(times);
const onReseal = (step: ResealStep) => {
  if (step === deadly && --left === 0) process.kill(process.pid, 'SIGKILL');
};
const library = await Library.open({ dataDir, resealing: { writersMs: 0, readersMs: 0, stepMs: 1, pauseMs: 0 }, onReseal });
await library.queue.releaseAll();
await library.worker.drain();
await library[Symbol.asyncDispose]();
