import { Worker } from 'node:worker_threads';
import { expect, test, vi } from 'vitest';
import type { PartitionCommand } from './partition-commands.ts';
import { PartitionThread } from './partition-thread.ts';

/** What each request to the thread held, as `partition:revision`. */
async function requestsOf(commands: readonly PartitionCommand[]): Promise<readonly string[]> {
  const posting = vi.spyOn(Worker.prototype, 'postMessage');
  await using thread = new PartitionThread({ bytesMax: 1_000_000, queuedMax: 100, onLost: () => {} });
  try {
    await Promise.all(commands.map((command) => thread.send(command)));
    return posting.mock.calls.map(([request]) =>
      (request as { readonly commands: readonly { partition: number; revision: number }[] }).commands
        .map(({ partition, revision }) => `${partition}:${revision}`)
        .join(' '),
    );
  } finally {
    posting.mockRestore();
  }
}

const ask = (partition: number, revision = 1): PartitionCommand => ({
  kind: 'nearest',
  partition,
  revision,
  question: new Float32Array(384),
  filter: undefined,
});

test('questions of one store that wait one behind the other share a pass, eight at most', async () => {
  // The first two are sent as they come.
  const requests = await requestsOf([ask(1), ask(1), ...Array.from({ length: 9 }, () => ask(1))]);
  expect(requests.map((request) => request.split(' ').length)).toEqual([1, 1, 8, 1]);
});

test('nobody is overtaken: not another store, not another revision', async () => {
  const requests = await requestsOf([ask(9), ask(9), ask(1), ask(2), ask(1), ask(1), ask(1, 2)]);
  expect(requests).toEqual(['9:1', '9:1', '1:1', '2:1', '1:1 1:1', '1:2']);
});
