/** Non-streaming chat through each gateway and straight to the upstream, rounds interleaved so that a busy moment hits all alike. */
import { median, milliseconds, table, whole } from '../support/table.ts';
import { type Bench, type ClosedRun, closedChat, type Finding, type Target } from './bench.ts';

const connectionCounts = [1, 16, 64];

interface Row {
  readonly connections: number;
  readonly target: string;
  readonly rounds: ClosedRun[];
}

/** @param targets - the first is the upstream itself, against which `added` is reckoned. */
export async function measureThroughput(bench: Bench, targets: readonly Target[]): Promise<Finding> {
  const rows = connectionCounts.flatMap((connections) => targets.map((target): Row => ({ connections, target: target.name, rounds: [] })));
  const shape = bench.quick ? { warmupMs: 500, measureMs: 1_200 } : { warmupMs: 1_000, measureMs: 4_000 };
  for (const target of targets) await closedChat(bench, target, { connections: 16, warmupMs: 0, measureMs: shape.warmupMs * 4 });
  for (let round = 0; round < bench.rounds; round++) {
    for (const connections of connectionCounts) {
      for (const target of targets) {
        const result = await closedChat(bench, target, { connections, ...shape });
        rows.find((row) => row.connections === connections && row.target === target.name)?.rounds.push(result);
        bench.say(
          `round ${round + 1}/${bench.rounds}, ${connections} connections, ${target.name}: ${whole(result.requestsPerSecond)} requests/s`,
        );
      }
    }
  }
  return { title: 'Non-streaming chat', markdown: describe(bench, rows, targets[0]?.name), raw: rows };
}

function describe(bench: Bench, rows: readonly Row[], directName: string | undefined): string {
  const middle = (row: Row | undefined, field: 'requestsPerSecond' | 'p50Ms' | 'p99Ms' | 'processorMicros') =>
    median((row?.rounds ?? []).map((round) => round[field]));
  const cells = rows.map((row) => {
    const direct = rows.find((other) => other.connections === row.connections && other.target === directName);
    const added = (field: 'p50Ms' | 'p99Ms') => (row === direct ? '-' : milliseconds(middle(row, field) - middle(direct, field)));
    const [p50, p99] = [middle(row, 'p50Ms'), middle(row, 'p99Ms')];
    return [
      row.connections,
      row.target,
      whole(middle(row, 'requestsPerSecond')),
      milliseconds(p50),
      milliseconds(p99),
      added('p50Ms'),
      added('p99Ms'),
      whole(middle(row, 'processorMicros')),
    ];
  });
  const header = ['connections', 'target', 'requests/s', 'p50 ms', 'p99 ms', 'added p50 ms', 'added p99 ms', 'processor µs a request'];
  const seconds = (rows[0]?.rounds[0]?.seconds ?? 0).toFixed(1);
  return (
    `Closed loop, keep-alive, a question of 3 words and an answer of 3; medians of ${bench.rounds} interleaved rounds of ${seconds} s. ` +
    'Bulkhead authenticates by API key, reserves requests, tokens, slots and money, queues fairly, prices and journals every request; ' +
    'the bare proxy passes bytes on unread; Portkey runs with its documented headers and no policies. ' +
    `Processor time is what the target used in all its threads; it holds still when the machine is busy.\n\n${table(header, cells)}`
  );
}
