/** Seals content anew in the data directory of its first argument until it is killed or has nothing to do. Says when it begins. */
import { Library } from '../retrieval/library.ts';

const [dataDir = ''] = process.argv.slice(2);
const library = await Library.open({ dataDir, resealing: { writersMs: 0, readersMs: 0, stepMs: 1, pauseMs: 0 } });
await library.queue.releaseAll();
process.stdout.write('begun\n');
await library.worker.drain();
await library[Symbol.asyncDispose]();
process.stdout.write('ended\n');
