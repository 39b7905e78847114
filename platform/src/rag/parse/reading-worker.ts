/** Entry of the worker thread that reads documents. Takes one task at a time; whatever goes wrong here stays here. */
import { parentPort } from 'node:worker_threads';
import { BulkheadError } from '../../errors/bulkhead-error.ts';
import { chunkBlocks } from '../chunk.ts';
import { parseDocument } from './parse-document.ts';
import type { ReadingResult, ReadingTask } from './reading.ts';

parentPort?.on('message', (task: ReadingTask) => {
  void read(task).then((result) => parentPort?.postMessage(result));
});

const ready: ReadingResult = { kind: 'ready' };
parentPort?.postMessage(ready);

async function read(task: ReadingTask): Promise<ReadingResult> {
  try {
    const { format, blocks } = await parseDocument(task.filename, task.bytes);
    const chunks = chunkBlocks(blocks, task.chunking);
    if (chunks.length > task.chunksMax) {
      const message = `a document has at most ${task.chunksMax} chunks; this one has ${chunks.length}`;
      return { kind: 'refused', code: 'document_limit', message };
    }
    return { kind: 'read', document: { format, chunks: chunks.map(({ text, tokens }) => ({ text, tokens })) } };
  } catch (error) {
    if (error instanceof BulkheadError) return { kind: 'refused', code: error.code, message: error.message };
    return { kind: 'refused', code: 'parse_failed', message: 'the document could not be read' };
  }
}
