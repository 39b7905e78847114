/**
 * Requests that end in every way there is: answered, given up by the client, failed upstream, forgotten, and those of processes that are killed. One lease later
 * nothing may be held: no slot, no money, no lease.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as wait } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { RunningValkey } from '../../../scripts/services.mjs';
import { MemoryLimitStore } from '../../src/adapters/memory/limit-store.ts';
import { ValkeyLimitStore } from '../../src/adapters/valkey/limit-store.ts';
import { Script } from '../../src/adapters/valkey/valkey-connection.ts';
import { ManualClock, systemClock } from '../../src/primitives/clock.ts';
import { type Random, seededRandom } from '../../src/primitives/random.ts';
import { endAtRandom, leakScopes, leaseMs } from './random-endings.ts';
import { noMoney } from './shapes.ts';
import { connect } from './valkey-cost.ts';

export interface Leaks {
  readonly endings: number;
  /** Requests, or processes, that ended without a word. */
  readonly forgotten: number;
  readonly kills: number;
  readonly slotsHeld: number;
  readonly nanoUsdHeld: number;
  readonly leasesHeld: number;
}

interface LeakRun {
  readonly endings: number;
  readonly seed: number;
}

const replicas = 2;
const replicaScript = fileURLToPath(new URL('./leaking-replica.ts', import.meta.url));
const heldInScope = new Script("local h = cmsgpack.unpack(redis.call('GET', KEYS[1])); return {h[5], h[8]}");
const nothing = { inputTokens: 0, outputTokens: 0, costNanoUsd: 0 };

export async function measureLeaksInMemory({ endings, seed }: LeakRun): Promise<Leaks> {
  const clock = new ManualClock();
  const store = new MemoryLimitStore(clock);
  const random = seededRandom(seed);
  let [forgotten, spent] = [0, 0];
  for (let index = 0; index < endings; index++) {
    const cost = await endAtRandom(store, random, `r${index}`);
    if (cost === undefined) forgotten++;
    spent += cost ?? 0;
    clock.advance(1);
    if (index % 1_000 === 0) await store.reap();
  }
  clock.advance(leaseMs);
  await store.reap();
  const leasesHeld = await store.liveCount();
  let [slotsHeld, nanoUsdHeld] = [0, -spent];
  for (const [tenant, scopes] of leakScopes.entries()) {
    const outcome = await store.reserve({ reservationId: `probe-${tenant}`, leaseMs, amounts: nothing, scopes });
    if (outcome.kind !== 'reserved') throw new Error(`a probe was ${outcome.kind}`);
    for (const { dimension, limit, remaining } of outcome.states) {
      if (dimension === 'concurrency') slotsHeld += limit - remaining - 1;
      if (dimension === 'budget') nanoUsdHeld += limit - remaining;
    }
  }
  return { endings, forgotten, kills: 0, slotsHeld, nanoUsdHeld, leasesHeld };
}

/** Processes of their own, killed at random moments and replaced, until so many requests have ended; then all are killed. */
export async function measureLeaksInValkey(server: RunningValkey, { endings, seed }: LeakRun): Promise<Leaks> {
  const random = seededRandom(seed);
  const prefix = `leaks-${seed}`;
  const counts = { endings: 0, forgotten: 0, kills: 0 };
  const start = () => startReplica([server.url, prefix, String(Math.floor(random.next() * 2 ** 31))], counts);
  const running = Array.from({ length: replicas }, start);
  while (counts.endings < endings) {
    await wait(500 + random.next() * 1_500);
    const slot = Math.floor(random.next() * replicas);
    await killed(running[slot] as ChildProcess, counts);
    running[slot] = start();
  }
  for (const replica of running) await killed(replica, counts);
  return { ...counts, ...(await heldIn(server, prefix, random)) };
}

type Counts = { endings: number; forgotten: number; kills: number };

function startReplica(args: readonly string[], counts: Counts): ChildProcess {
  const replica = fork(replicaScript, args, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  replica.on('message', (said: Pick<Counts, 'endings' | 'forgotten'>) => {
    counts.endings += said.endings;
    counts.forgotten += said.forgotten;
  });
  return replica;
}

async function killed(replica: ChildProcess, counts: Counts): Promise<void> {
  if (replica.exitCode !== null) throw new Error(`a replica ended by itself with code ${replica.exitCode}`);
  const ended = once(replica, 'exit');
  replica.kill('SIGKILL');
  await ended;
  counts.kills++;
}

/** A replica that lives is asked by every tenant, once, and reaps a lease after the others were killed. */
async function heldIn(
  server: RunningValkey,
  prefix: string,
  random: Random,
): Promise<Pick<Leaks, 'slotsHeld' | 'nanoUsdHeld' | 'leasesHeld'>> {
  await using connection = await connect(server.url);
  const survivor = new ValkeyLimitStore({ connection, clock: systemClock, budgets: noMoney, prefix });
  for (const scopes of leakScopes) {
    const reservationId = `survivor-${random.next()}`;
    await survivor.reserve({ reservationId, leaseMs, amounts: nothing, scopes });
    await survivor.settle(reservationId, nothing);
  }
  await wait(leaseMs);
  await survivor.reap();
  let [slotsHeld, nanoUsdHeld] = [0, 0];
  for (const [tenant] of leakScopes) {
    const pattern = `${prefix}:2:{${tenant?.key}}:s:`;
    for (const scope of leakScopes.flat().filter(({ key }) => key.startsWith(`${tenant?.key}`))) {
      const [slots, nanoUsd] = await connection.run<readonly [number, number]>(heldInScope, [pattern + scope.key], []);
      slotsHeld += slots;
      nanoUsdHeld += nanoUsd;
    }
  }
  return { slotsHeld, nanoUsdHeld, leasesHeld: await survivor.liveCount() };
}
