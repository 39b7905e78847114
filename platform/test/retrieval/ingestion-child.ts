/** Opens a data directory, indexes, and kills itself at the point that it is told: `node ingestion-child.ts DATA_DIR POINT`. */
import { PostgresIngestionShelf } from '../../src/adapters/postgres/documents-ingestion.ts';
import { hashedEmbedder, Library } from './library.ts';

export type KillPoint = 'begun' | 'first-embedding' | 'second-embedding' | 'before-publish' | 'after-publish' | 'after-complete';

const [, , dataDir, point] = process.argv;
if (dataDir === undefined) throw new Error('a data directory is needed');

const dieAt = (here: KillPoint) => {
  if (here === point) process.kill(process.pid, 'SIGKILL');
};
let calls = 0;
const library = await Library.open({
  dataDir,
  embedder: {
    async embed(texts, signal) {
      dieAt(++calls === 1 ? 'first-embedding' : 'second-embedding');
      return hashedEmbedder.embed(texts, signal);
    },
  },
  shelfOf: (database) => {
    const shelf = new PostgresIngestionShelf(database);
    return {
      fail: (reference, error) => shelf.fail(reference, error),
      async begin(reference) {
        const draft = await shelf.begin(reference);
        dieAt('begun');
        if (draft === undefined) return undefined;
        return {
          filename: draft.filename,
          chunking: draft.chunking,
          embeddingModel: draft.embeddingModel,
          embeddingDimensions: draft.embeddingDimensions,
          readBody: () => draft.readBody(),
          resume: (digest, texts) => draft.resume(digest, texts),
          park: (digest) => draft.park(digest),
          append: (chunks) => draft.append(chunks),
          async publish() {
            dieAt('before-publish');
            const isPublished = await draft.publish();
            dieAt('after-publish');
            return isPublished;
          },
        };
      },
    };
  },
});
await library.queue.releaseAll();
await library.worker.drain();
dieAt('after-complete');
await library[Symbol.asyncDispose]();
