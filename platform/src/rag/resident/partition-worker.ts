/** The thread that holds partitions and scans them, so that no scan holds up a request. One request at a time, in the order they came. */
import { parentPort, workerData } from 'node:worker_threads';
import { BlockMemory, BlocksExhausted } from './block-memory.ts';
import { Partition } from './partition.ts';
import type { NearestCommand, PartitionAnswer, PartitionCommand, PartitionThreadData, Reply, Request } from './partition-commands.ts';

const port = parentPort;
if (port === null) throw new Error('partition-worker.ts runs as a worker thread');
const memory = new BlockMemory((workerData as PartitionThreadData).bytesMax);
const partitions = new Map<number, Partition>();

port.on('message', (request: Request) => port.postMessage(reply(request)));

function reply({ id, commands }: Request): Reply {
  try {
    return { id, answers: commands.length > 1 ? together(commands as readonly NearestCommand[]) : commands.map(answer) };
  } catch (error) {
    for (const { partition } of commands) release(partition);
    if (error instanceof BlocksExhausted) return { id, answers: commands.map(() => ({ kind: 'full' })) };
    return { id, failure: error instanceof Error ? error.message : 'unknown' };
  }
}

/** Of one partition at one revision. */
function together(commands: readonly NearestCommand[]): readonly PartitionAnswer[] {
  const [first] = commands;
  const partition = first && partitions.get(first.partition);
  if (partition === undefined || partition.revision !== first?.revision) return commands.map(() => ({ kind: 'stale' }));
  return partition.nearestOf(commands).map((places) => ({ kind: 'places', places }));
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
