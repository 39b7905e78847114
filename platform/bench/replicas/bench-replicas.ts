/**
 * Four replicas that share 64 permits in a real Valkey, against one queue and against 16 permits on each.
 * `npm run bench -- replicas [--seconds 20] [--seeds 1] [--full] [--json FILE] [--write-docs]`
 */
import { randomUUID } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { setTimeout as wait } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { startValkey } from '../../../scripts/services.mjs';
import { systemClock } from '../../src/primitives/clock.ts';
import { MemoryFairQueue } from '../../src/scheduler/memory-fair-queue.ts';
import { permitTimes } from '../../src/scheduler/permit-exchange.ts';
import { openSharingReplica, type SharingReplica } from '../../test/support/sharing-replica.ts';
import { machineFacts } from '../support/machine.ts';
import { machineLine, writeDocsSection, writeResults } from '../support/report.ts';
import { median, table, whole } from '../support/table.ts';
import { type Outcome, Workload } from './workload.ts';

const replicaCount = 4;
const capacity = 64;
const warmSeconds = 8;
const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '20' },
    seeds: { type: 'string', default: '1' },
    json: { type: 'string' },
    full: { type: 'boolean', default: false },
    'write-docs': { type: 'boolean', default: false },
  },
});
const seconds = values.full ? 60 : Number(values.seconds);
const seeds = values.full ? 3 : Number(values.seeds);
if (!(seconds > 0 && seeds >= 1)) throw new Error('--seconds and --seeds take positive numbers');

type Kind = 'one queue' | 'shared permits' | 'a quarter each';
interface Measured extends Outcome {
  readonly kind: Kind;
  readonly seed: number;
  readonly callsPerRequest: number | undefined;
}
interface Outage {
  readonly before: number;
  readonly atMost: number;
  readonly settled: number;
  readonly afterReturn: number;
}

const measured: Measured[] = [];
const outages: Outage[] = [];
const server = await startValkey();
// The three kinds at the same time: whatever else the machine does happens to all of them.
for (let seed = 1; seed <= seeds; seed++) {
  const quarters = Array.from({ length: replicaCount }, () => capacity / replicaCount);
  measured.push(
    ...(await Promise.all([
      measureLocal('one queue', [capacity], seed),
      measureShared(seed),
      measureLocal('a quarter each', quarters, seed),
    ])),
  );
}
const idleCallsPerRequest = await measureRoom();
outages.push(await measureOutage());
await server.stop('SIGKILL');
report();
process.exit(0);

async function measureLocal(kind: Kind, capacities: readonly number[], seed: number): Promise<Measured> {
  const queues = capacities.map((permits) => {
    const queue = new MemoryFairQueue({ clock: systemClock, requestsPerTenantMax: 100_000, bytesMax: 1e12, waitMaxMs: 600_000 });
    queue.setCapacity('pool', permits);
    return queue;
  });
  const outcome = await new Workload({ queues, seed, seconds, warmSeconds }).run();
  return { kind, seed, callsPerRequest: undefined, ...outcome };
}

async function openReplicas(url: string): Promise<readonly SharingReplica[]> {
  const prefix = randomUUID();
  const replicas: SharingReplica[] = [];
  for (let index = 0; index < replicaCount; index++) replicas.push(await openSharingReplica({ url, prefix, id: `r${index}`, capacity }));
  for (const { presence } of replicas) await presence.beHere();
  await wait(permitTimes.learningMs + 500);
  return replicas;
}

async function closeAll(replicas: readonly SharingReplica[]): Promise<void> {
  for (const replica of replicas) await replica[Symbol.asyncDispose]();
}

function callsOf(replicas: readonly SharingReplica[]): number {
  return replicas.reduce((sum, { counted }) => sum + counted.calls, 0);
}

async function measureShared(seed: number): Promise<Measured> {
  const replicas = await openReplicas(server.url);
  const workload = new Workload({ queues: replicas.map(({ queue }) => queue), seed, seconds, warmSeconds });
  let calls = 0;
  const outcome = await workload.run(async () => {
    const before = callsOf(replicas);
    await wait(seconds * 1_000);
    calls = callsOf(replicas) - before;
  });
  await closeAll(replicas);
  return { kind: 'shared permits', seed, callsPerRequest: calls / outcome.requests, ...outcome };
}

/** 32 of the 64 permits in use, 400 requests a second on each replica. */
async function measureRoom(): Promise<number> {
  const replicas = await openReplicas(server.url);
  let requests = 0;
  const stop = new AbortController();
  const tenantId = 'tenant-0' as Parameters<SharingReplica['queue']['acquire']>[0]['tenantId'];
  const ticket = {
    poolId: 'pool',
    tenantId,
    workClass: 'interactive',
    user: 'u',
    weight: 1,
    inputTokens: 10,
    predictedOutputTokens: 10,
    bytes: 1,
  } as const;
  const loops = replicas.flatMap(({ queue }) =>
    Array.from({ length: 8 }, async () => {
      while (!stop.signal.aborted) {
        const permit = await queue.acquire(ticket, new AbortController().signal);
        await wait(20);
        permit.finish({ inputTokens: 10, outputTokens: 10 });
        requests++;
      }
    }),
  );
  await wait(1_000);
  requests = 0;
  const before = callsOf(replicas);
  await wait(5_000);
  const perRequest = (callsOf(replicas) - before) / requests;
  stop.abort();
  await Promise.all(loops);
  await closeAll(replicas);
  return perRequest;
}

async function measureOutage(): Promise<Outage> {
  const own = await startValkey();
  const replicas = await openReplicas(own.url);
  const workload = new Workload({ queues: replicas.map(({ queue }) => queue), seed: 1, seconds: 14, warmSeconds });
  const most = async (ms: number) => {
    workload.count();
    await wait(ms);
    return workload.runningMax;
  };
  let outage: Outage | undefined;
  await workload.run(async () => {
    const before = await most(2_000);
    await own.stop('SIGKILL');
    const atMost = await most(2_000);
    const settled = await most(2_000);
    const back = await startValkey({ port: own.port as number });
    await most(permitTimes.learningMs);
    outage = { before, atMost, settled, afterReturn: await most(4_000) };
    setTimeout(() => void back.stop('SIGKILL'), 3_000).unref();
  });
  await closeAll(replicas);
  if (outage === undefined) throw new Error('the outage was not measured');
  return outage;
}

function percentile(sorted: readonly number[], part: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? Number.NaN;
}

function report(): void {
  const kinds: readonly Kind[] = ['one queue', 'shared permits', 'a quarter each'];
  const of = (kind: Kind, pick: (each: Measured) => number) => median(measured.filter((each) => each.kind === kind).map(pick));
  const exact = of('one queue', ({ worstDifference }) => worstDifference);
  const text = table(
    [
      'permits',
      'largest difference',
      'of one queue',
      'share of the one alone',
      'light wait p50 ms',
      'p99 ms',
      'cost per second',
      'calls a request',
    ],
    kinds.map((kind) => {
      const difference = of(kind, ({ worstDifference }) => worstDifference);
      return [
        kind,
        whole(difference),
        (difference / exact).toFixed(2),
        of(kind, ({ aloneShare }) => aloneShare).toFixed(2),
        of(kind, ({ lightWaitsMs }) => percentile(lightWaitsMs, 0.5)).toFixed(1),
        of(kind, ({ lightWaitsMs }) => percentile(lightWaitsMs, 0.99)).toFixed(1),
        whole(of(kind, ({ costPerSecond }) => costPerSecond)),
        kind === 'shared permits' ? of(kind, ({ callsPerRequest = Number.NaN }) => callsPerRequest).toFixed(2) : '-',
      ];
    }),
  );
  const [{ before, atMost, settled, afterReturn } = { before: 0, atMost: 0, settled: 0, afterReturn: 0 }] = outages;
  const room = `While half of the permits are free, pool calls are ${idleCallsPerRequest.toFixed(3)} a request (1,600 requests a second).`;
  const dead =
    `Most permits in use of ${capacity}: ${before} before Valkey was killed, ${atMost} in the two seconds after it, ${settled} in the two seconds after that, ` +
    `${afterReturn} once it had come back empty.`;
  process.stdout.write(`${text}\n\n${room}\n${dead}\n`);
  const facts = machineFacts({ gateway: undefined, load: undefined, upstream: undefined, text: 'nothing pinned' });
  const runs = measured.map(({ lightWaitsMs, ...rest }) => ({
    ...rest,
    light: { count: lightWaitsMs.length, p50Ms: percentile(lightWaitsMs, 0.5), p99Ms: percentile(lightWaitsMs, 0.99) },
  }));
  const results = { replicaCount, capacity, seconds, warmSeconds, seeds, runs, idleCallsPerRequest, outages };
  if (values.json !== undefined)
    writeFileSync(values.json, `${JSON.stringify({ benchmark: 'replicas', machine: facts, results }, null, 2)}\n`);
  if (!values['write-docs']) return;
  writeResults('replicas', facts, results);
  const intro =
    `Four replicas, ${capacity} permits, four tenants with 80 requests waiting each and different sizes, one of which comes by the first replica alone, and one that asks now ` +
    `and then; ${seconds} s after ${warmSeconds} s, median of ${seeds} seeds.`;
  writeDocsSection('replicas', `## Replicas\n\n${machineLine(facts)}\n\n${intro}\n\n${text}\n\n${room} ${dead}`);
}
