/** Replicas that share a pool in a real Valkey: killed, cut off, with wrong clocks; a Valkey that is killed, hangs, or comes back empty. */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { setTimeout as wait } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, it } from 'vitest';
import { startValkey } from '../../../../scripts/services.mjs';
import { systemClock } from '../../../src/primitives/clock.ts';
import { permitTimes } from '../../../src/scheduler/permit-exchange.ts';
import { startValkeyWithCopy } from '../../support/failover.ts';
import { flood, openSharingReplica, type SharingReplica, ticketFor } from '../../support/sharing-replica.ts';

const child = fileURLToPath(new URL('./replica-child.ts', import.meta.url));
const running: { stop(signal?: NodeJS.Signals): Promise<void> }[] = [];
const replicas: SharingReplica[] = [];
const children: ChildProcess[] = [];
afterEach(async () => {
  for (const each of children.splice(0)) each.kill('SIGKILL');
  for (const replica of replicas.splice(0)) await replica[Symbol.asyncDispose]();
  for (const server of running.splice(0)) await server.stop('SIGKILL');
});

async function open(count: number, capacity: number) {
  const server = await startValkey();
  running.push(server);
  return { server, prefix: await openReplicas(server.url, count, capacity) };
}

async function openReplicas(url: string, count: number, capacity: number): Promise<string> {
  const prefix = randomUUID();
  for (let index = 0; index < count; index++) {
    // A clock that is an hour wrong, either way, changes nothing (invariant 21).
    const offMs = [0, 3_600_000, -3_600_000][index % 3] as number;
    const clock = { nowMs: () => Date.now() + offMs, monotonicMs: () => systemClock.monotonicMs() + Math.abs(offMs) };
    replicas.push(await openSharingReplica({ url, prefix, id: `r${index}`, capacity, clock, commandTimeoutMs: 100 }));
  }
  for (const { presence } of replicas) await presence.beHere();
  await wait(permitTimes.learningMs + 300);
  return prefix;
}

/** Load on all of them; how many run together is looked at whenever one starts. */
class Load {
  readonly stop = new AbortController();
  readonly started = replicas.map(() => 0);
  readonly waits: number[] = [];
  running = 0;
  most = 0;
  readonly #all: Promise<unknown>;

  constructor(load: { readonly depth: number; readonly holdMs: number; readonly weights?: readonly number[] }) {
    this.#all = Promise.all(
      replicas.map((replica, index) =>
        flood(replica, {
          ...load,
          tenant: `tenant${index}`,
          weight: load.weights?.[index] ?? 1,
          signal: this.stop.signal,
          onStart: (queueMs) => {
            this.started[index] = (this.started[index] as number) + 1;
            this.waits.push(queueMs);
            this.running++;
            this.most = Math.max(this.most, this.running);
          },
          onEnd: () => void this.running--,
        }),
      ),
    );
  }

  since(): void {
    this.most = this.running;
    this.started.fill(0);
    this.waits.length = 0;
  }

  async end(): Promise<void> {
    this.stop.abort();
    await this.#all;
  }
}

describe('replicas on one Valkey', () => {
  it('never run more together than there are permits, use all of them, and share by weight', async () => {
    await open(4, 16);
    const load = new Load({ depth: 30, holdMs: 40, weights: [3, 1, 1, 1] });
    await wait(1_000);
    load.since();
    await wait(4_000);
    const [first = 0, ...others] = load.started;
    const total = load.started.reduce((sum, each) => sum + each, 0);
    expect(load.most).toBeLessThanOrEqual(16);
    expect(total).toBeGreaterThan(0.75 * 16 * (4_000 / 40));
    for (const other of others) expect(first / other).toBeCloseTo(3, 0);
    await load.end();
    await expect.poll(() => replicas.reduce((sum, { pool }) => sum + pool.inFlight, 0), { timeout: 2_000 }).toBe(0);
  });

  // Planted: an exchange for every request.
  it('ask nothing for a request while there is room, and about once a request when there is none', async () => {
    await open(4, 64);
    const calls = () => replicas.reduce((sum, { counted }) => sum + counted.calls, 0);
    const light = new Load({ depth: 4, holdMs: 10 });
    await wait(500);
    light.since();
    const before = calls();
    await wait(2_000);
    const requests = light.started.reduce((sum, each) => sum + each, 0);
    expect(requests).toBeGreaterThan(1_000);
    expect(light.waits.filter((ms) => ms > 0)).toEqual([]);
    expect(calls() - before).toBeLessThan(4 * 10 * 2 + 20);
    await light.end();
    const heavy = new Load({ depth: 40, holdMs: 200 });
    await wait(1_000);
    heavy.since();
    const from = calls();
    await wait(4_000);
    const each = (calls() - from - 4 * 10 * 4) / heavy.started.reduce((sum, count) => sum + count, 0);
    expect(each).toBeLessThan(1.2);
    await heavy.end();
  });

  // Planted: a permit that only a message brings.
  it('go on without the messages, which are only quicker', async () => {
    await open(2, 4);
    const load = new Load({ depth: 10, holdMs: 30 });
    for (let count = 0; count < 10; count++) {
      await replicas[0]?.connection.send(['CLIENT', 'KILL', 'TYPE', 'pubsub']);
      await wait(100);
    }
    expect(load.most).toBeLessThanOrEqual(4);
    for (const started of load.started) expect(started).toBeGreaterThan(20);
    await load.end();
  });
});

describe('a replica that is killed', () => {
  it('gives its permits to the others within its lease, and they never use more than there are', async () => {
    const server = await startValkey();
    running.push(server);
    const prefix = randomUUID();
    const latest = new Map<string, { running: number; started: number }>();
    for (const id of ['r0', 'r1', 'r2']) {
      const process_ = spawn(process.execPath, [child, server.url, prefix, id, '9', `tenant-${id}`], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      children.push(process_);
      createInterface({ input: process_.stdout as NodeJS.ReadableStream }).on('line', (line) => latest.set(id, JSON.parse(line)));
    }
    const runningNow = (ids: readonly string[]) => ids.reduce((sum, id) => sum + (latest.get(id)?.running ?? 0), 0);
    await expect.poll(() => runningNow(['r0', 'r1', 'r2']), { timeout: 20_000 }).toBe(9);
    await expect.poll(() => [...latest.values()].every(({ started }) => started > 30), { timeout: 10_000 }).toBe(true);
    const [killed] = children as [ChildProcess];
    killed.kill('SIGKILL');
    await once(killed, 'exit');
    const from = performance.now();
    // It drew permits to itself for no longer than it takes to see that it is silent: what it did not hold is in use again long before its lease is over.
    await wait(permitTimes.waitingMs + permitTimes.placeholderMs);
    const left = 9 - runningNow(['r0']);
    await expect.poll(() => runningNow(['r1', 'r2']), { timeout: 2_000, interval: 50 }).toBeGreaterThanOrEqual(Math.max(1, left - 1));
    await expect.poll(() => runningNow(['r1', 'r2']), { timeout: 10_000, interval: 50 }).toBe(9);
    expect(performance.now() - from).toBeLessThan(permitTimes.leaseMs + 1_500);
    const before = [latest.get('r1')?.started ?? 0, latest.get('r2')?.started ?? 0] as const;
    await wait(3_000);
    const [one, two] = [(latest.get('r1')?.started ?? 0) - before[0], (latest.get('r2')?.started ?? 0) - before[1]];
    // Nine at a time and 180 in all: two rounds more or less are a fifth.
    expect(one / two).toBeGreaterThan(0.6);
    expect(one / two).toBeLessThan(1.7);
  });
});

describe('without Valkey', () => {
  it('each replica has its part, also after it came back empty, until all have told what they hold', async () => {
    const { server } = await open(4, 16);
    const load = new Load({ depth: 30, holdMs: 60, weights: [5, 1, 1, 1] });
    await wait(1_500);
    expect(load.most).toBeLessThanOrEqual(16);
    await server.stop('SIGKILL');
    await wait(2_500);
    load.since();
    await wait(1_000);
    expect(load.most).toBe(16);
    const even = load.started.map((count) => count / (load.started[0] as number));
    for (const part of even) expect(part).toBeCloseTo(1, 0);
    running.push(await startValkey({ port: server.port as number }));
    load.since();
    await expect.poll(() => replicas.every(({ pool }) => pool.elsewhere?.replicas === 3), { timeout: 10_000 }).toBe(true);
    await wait(permitTimes.learningMs + 1_000);
    expect(load.most).toBeLessThanOrEqual(16);
    load.since();
    await wait(3_000);
    expect(load.most).toBeLessThanOrEqual(16);
    expect((load.started[0] as number) / (load.started[1] as number)).toBeGreaterThan(3.5);
    await load.end();
  });

  // Planted: waiting for the answer.
  it('no request waits longer than a command for one that hangs', async () => {
    await open(2, 40);
    await replicas[0]?.connection.send(['CLIENT', 'PAUSE', '1500', 'ALL']);
    const waits: number[] = [];
    const until = performance.now() + 1_400;
    for (let count = 0; performance.now() < until; count++) {
      const permit = await (replicas[count % 2] as SharingReplica).queue.acquire(
        ticketFor({ tenant: 'acme' }),
        new AbortController().signal,
      );
      waits.push(permit.queueMs);
      await wait(2);
      permit.finish({ inputTokens: 1, outputTokens: 1 });
    }
    expect(waits.length).toBeGreaterThan(100);
    expect(Math.max(...waits)).toBeLessThan(400);
    // A process that stands still delays one request at a time; one that waits for each call would not get to a hundred.
    expect(waits.filter((ms) => ms > 50).length).toBeLessThan(0.03 * waits.length);
    await expect.poll(() => replicas.every(({ pool }) => pool.elsewhere?.replicas === 1), { timeout: 5_000 }).toBe(true);
  });
});

describe('when a copy takes over that has missed the latest writes', () => {
  it('permits that moved since may be used twice until those requests end, and then none is', async () => {
    const server = await startValkeyWithCopy();
    running.push(server);
    await openReplicas(server.url, 4, 16);
    const load = new Load({ depth: 30, holdMs: 60, weights: [5, 1, 1, 1] });
    await wait(1_500);
    await server.cutOff();
    // Long enough for every permit to have moved.
    await wait(500);
    load.since();
    await server.failOver();
    await expect.poll(() => replicas.every(({ pool }) => pool.elsewhere?.replicas === 3), { timeout: 10_000 }).toBe(true);
    await wait(1_000);
    // 17 at most were seen; a replica could be granted all that the others hold.
    expect(load.most).toBeLessThanOrEqual(24);
    load.since();
    await wait(3_000);
    expect(load.most).toBe(16);
    expect((load.started[0] as number) / (load.started[1] as number)).toBeGreaterThan(3.5);
    await load.end();
  });
});
