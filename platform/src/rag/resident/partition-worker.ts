/** The thread that holds partitions and scans them, so that no scan holds up a request. One command at a time, in the order they came. */
import { parentPort, workerData } from 'node:worker_threads';
import { BlockMemory, BlocksExhausted } from './block-memory.ts';
import { Partition } from './partition.ts';
import type { PartitionAnswer, PartitionCommand, PartitionThreadData, Reply, Request } from './partition-commands.ts';

const port = parentPort;
if (port === null) throw new Error('partition-worker.ts runs as a worker thread');
const memory = new BlockMemory((workerData as PartitionThreadData).bytesMax);
const partitions = new Map<number, Partition>();

port.on('message', ({ id, command }: Request) => port.postMessage(reply(id, command)));

function reply(id: number, command: PartitionCommand): Reply {
  try {
    return { id, answer: answer(command) };
  } catch (error) {
    release(command.partition);
    if (error instanceof BlocksExhausted) return { id, answer: { kind: 'full' } };
    return { id, failure: error instanceof Error ? error.message : 'unknown' };
  }
}

function answer(command: PartitionCommand): PartitionAnswer {
  if (command.kind === 'open') {
    partitions.set(command.partition, new Partition(memory, command.dimensions));
    return { kind: 'held', bytes: 0 };
  }
  const partition = partitions.get(command.partition);
  if (partition === undefined) return { kind: 'stale' };
  switch (command.kind) {
    case 'append':
      partition.append(command.batch);
      return { kind: 'held', bytes: partition.bytes };
    case 'publish':
      partition.publish(command.publication);
      return { kind: 'held', bytes: partition.bytes };
    case 'release':
      release(command.partition);
      return { kind: 'held', bytes: 0 };
    default:
      if (partition.revision !== command.revision) return { kind: 'stale' };
      return { kind: 'places', places: places(partition, command) };
  }
}

function places(partition: Partition, command: Extract<PartitionCommand, { readonly revision: number }>) {
  return command.kind === 'nearest'
    ? partition.nearest(command.question, command.filter)
    : partition.matching(command.words, command.filter);
}

function release(number: number): void {
  partitions.get(number)?.release();
  partitions.delete(number);
}
