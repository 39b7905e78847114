/**
 * Opens a data directory, embeds its stores anew, and kills itself after the given number of steps: `node reembedding-child.ts DATA_DIR STEPS`.
 * Ends by itself, with 0, when there are fewer.
 */
import { embedBy, Library } from './library.ts';

const [, , dataDir, steps] = process.argv;
if (dataDir === undefined) throw new Error('a data directory is needed');

let left = Number(steps);
const step = () => {
  if (--left === 0) process.kill(process.pid, 'SIGKILL');
};
const library = await Library.open({
  dataDir,
  embedderFor: (model) => ({
    async embed(texts) {
      step();
      return texts.map((text) => embedBy(model, text));
    },
  }),
  reembeddingOf: (shelf) => ({
    begin: (target) => shelf.begin(target),
    survey: () => shelf.survey(),
    markFault: (space, code) => shelf.markFault(space, code),
    async next(space) {
      const next = await shelf.next(space);
      step();
      return next;
    },
    async append(space, vectors) {
      const half = Math.ceil(vectors.length / 2);
      await shelf.append(space, vectors.slice(0, half));
      step();
      const isFilled = await shelf.append(space, vectors.slice(half));
      step();
      return isFilled;
    },
    async activate(space) {
      const isActive = await shelf.activate(space);
      step();
      return isActive;
    },
    async clear(space) {
      await shelf.clear(space);
      step();
    },
  }),
});
await library.queue.releaseAll();
await library.worker.drain();
step();
await library[Symbol.asyncDispose]();
