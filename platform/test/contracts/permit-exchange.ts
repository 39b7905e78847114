/**
 * What every exchange of permits must do, in Valkey or as the model of it. Faults that were planted in both and seen are named at each test.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ManualClock } from '../../src/primitives/clock.ts';
import type { TenantId } from '../../src/primitives/ids.ts';
import type { PermitExchange, PoolAnswer, PoolCharge, PoolStatement } from '../../src/scheduler/permit-exchange.ts';
import { permitTimes } from '../../src/scheduler/permit-exchange.ts';
import type { PoolHead } from '../../src/scheduler/pool-share.ts';

export interface PermitReplica {
  readonly exchange: PermitExchange;
  /** Resolves when this was heard. */
  hears(message: string): Promise<void>;
}

/** Replicas of one store whose time is the clock's. */
export type OpenPermits = (clock: ManualClock, names: readonly string[]) => Promise<readonly PermitReplica[]>;

export const head = (tenant: string, units = 10, queued = 1, workClass: PoolHead['workClass'] = 'interactive'): PoolHead => ({
  workClass,
  tenantId: tenant as TenantId,
  units,
  classUnits: units,
  queued,
});
const charge = (key: string, units: number, changes: Partial<PoolCharge> = {}): PoolCharge => ({
  level: 'interactive',
  key,
  hasBegun: false,
  startedAfter: undefined,
  units,
  creditMax: 2 ** 50,
  ...changes,
});

export function statement(changes: Partial<PoolStatement> = {}): PoolStatement {
  return {
    poolId: 'pool',
    capacity: 8,
    isCapacityNew: false,
    batchMax: 6,
    part: 4,
    held: 0,
    running: 0,
    runningBatch: 0,
    granted: 0,
    number: 0,
    charges: [],
    heads: [],
    ...changes,
  };
}

/** Says how a replica stands as a replica would: what it is granted it holds. */
class Speaker {
  readonly replica: PermitReplica;
  held = 0;
  granted = 0;
  number = 0;

  constructor(replica: PermitReplica) {
    this.replica = replica;
  }

  async say(changes: Partial<PoolStatement> = {}): Promise<PoolAnswer> {
    const { held, granted } = this;
    if (changes.charges !== undefined) this.number++;
    const answer = await this.replica.exchange.exchange(statement({ held, running: held, granted, number: this.number, ...changes }));
    this.held = (changes.held ?? held) + answer.granted - granted - answer.lost;
    this.granted = answer.granted;
    return answer;
  }
}

async function opened(open: OpenPermits, count = 2) {
  const clock = new ManualClock();
  const replicas = await open(
    clock,
    Array.from({ length: count }, (_, index) => `r${index}`),
  );
  const speakers = replicas.map((replica) => new Speaker(replica)) as [Speaker, Speaker, ...Speaker[]];
  // The store has learned who holds what.
  for (const speaker of speakers) await speaker.say({ part: 0 });
  clock.advance(permitTimes.learningMs);
  for (const speaker of speakers) {
    await speaker.say({ held: 0, running: 0 });
    speaker.held = 0;
  }
  for (const speaker of speakers) await speaker.say({ held: 0, running: 0, capacity: 8 }).then(() => speaker.say({ held: 0, running: 0 }));
  return { clock, speakers, replicas };
}

export function describePermitExchange(name: string, open: OpenPermits): void {
  describe(name, () => {
    describePermits(open);
    describeTimes(open);
    describeFailures(open);
    describeHistories(open);
  });
}

/** All permits in use by the first. */
async function saturated(open: OpenPermits, count = 2) {
  const { clock, speakers, replicas } = await opened(open, count);
  for (const speaker of speakers) await speaker.say({ held: 0, running: 0, heads: [] });
  const [first, ...rest] = speakers;
  // What the others keep comes back with their next word.
  for (const speaker of rest) await speaker.say({ held: 0, running: 0, heads: [head('nobody')] });
  for (let round = 0; round < 3; round++) {
    for (const speaker of rest) await speaker.say({ held: 0, running: 0 });
    await first.say({ heads: [head('a', 10, 16)] });
  }
  for (const speaker of rest) {
    await speaker.say({ held: 0, running: 0 });
    speaker.held = 0;
  }
  await first.say({ heads: [head('a', 10, 16)] });
  await first.say({ heads: [] });
  return { clock, speakers, replicas };
}

function describePermits(open: OpenPermits): void {
  // Planted: granting while the sum is at the capacity.
  it('grants what waits up to the capacity, and no more', async () => {
    const { speakers } = await saturated(open);
    const [first, second] = speakers;
    expect(first.held).toBe(8);
    const answer = await second.say({ heads: [head('b')] });
    expect(answer).toMatchObject({ free: 0, spare: 0, isWanted: false });
    expect(second.held).toBe(0);
    expect(await first.say({ heads: [head('a')] })).toMatchObject({ isWanted: true, elsewhere: { waiting: 1 } });
    expect(first.held).toBe(8);
  });

  // Planted: the first replica in the list instead of the one with the least tag.
  it('gives what comes back to the replica whose next request is entitled to it, and tells it', async () => {
    const { speakers, replicas } = await saturated(open, 3);
    const [first, second, third] = speakers as [Speaker, Speaker, Speaker];
    await first.say({ charges: [charge('b', 500), charge('c', 100)], heads: [head('a')] });
    await second.say({ heads: [head('b')] });
    await third.say({ heads: [head('c')] });
    await first.say({ charges: [charge('a', 300)], heads: [head('a')], held: 7, running: 7 });
    expect(first.held).toBe(7);
    await replicas[2]?.hears(`granted pool ${third.granted + 1}`);
    // The next is its own: 300 is less than 500.
    await first.say({ held: 6, running: 6, heads: [head('a')] });
    expect(first.held).toBe(7);
  });

  // Planted: one tag a tenant.
  it('knows the order of what waits beyond the first', async () => {
    const { speakers } = await saturated(open);
    const [first, second] = speakers;
    await first.say({ charges: [charge('a', 25)], heads: [] });
    await second.say({ heads: [head('b', 10, 5)] });
    await first.say({ held: 4, running: 4, heads: [head('a', 10, 4)] });
    // Tags 0, 10, 20 are b's, 25 is a's.
    expect(first.held).toBe(5);
    await second.say({ heads: [] });
    expect(second.held).toBe(3);
  });

  it('leaves each replica its part of what nobody uses', async () => {
    const { speakers } = await opened(open);
    const [first, second] = speakers;
    for (const speaker of [first, second, first, second]) await speaker.say({ running: 0 });
    expect([first.held, second.held]).toEqual([4, 4]);
    expect(await first.say({ running: 3 })).toMatchObject({ spare: 3 });
  });

  // Planted: calling nothing back.
  it('calls back what is kept elsewhere when a request waits', async () => {
    const { speakers, replicas } = await opened(open);
    const [first, second] = speakers;
    for (const speaker of [first, second, first, second]) await speaker.say({ running: 0 });
    await first.say({ heads: [head('a', 10, 2)] });
    expect(first.held).toBe(4);
    await replicas[1]?.hears('wanted pool');
    await second.say({ held: 0, running: 0 });
    await first.say();
    expect(first.held).toBe(6);
  });

  // Planted: batch work without its limit.
  it('holds batch work to its part over all replicas, and gives the class with less virtual time the turn', async () => {
    const { speakers } = await saturated(open);
    const [first, second] = speakers;
    await first.say({ held: 0, running: 0, heads: [head('a', 10, 16, 'batch')] });
    expect(first.held).toBe(6);
    await first.say({ runningBatch: 6, heads: [head('a', 10, 4, 'batch')], charges: [charge('batch', 7, { level: 'classes' })] });
    await second.say({ heads: [head('b', 10, 2)] });
    expect(second.held).toBe(2);
    await second.say({ heads: [head('b')] });
    await first.say({ held: 5, running: 5, runningBatch: 5, heads: [head('a', 10, 4, 'batch')] });
    await second.say({ charges: [charge('interactive', 9, { level: 'classes' })], heads: [head('b')] });
    expect(second.held).toBe(3);
    await first.say({ held: 4, running: 4, runningBatch: 4, heads: [head('a', 10, 4, 'batch')] });
    expect(first.held).toBe(5);
  });

  // Planted: the capacity of whoever speaks.
  it('holds to the capacity that was set last, whoever says another, and tells when there are too many', async () => {
    const { speakers, replicas } = await saturated(open);
    const [first, second] = speakers;
    expect(await second.say({ capacity: 3, isCapacityNew: true })).toMatchObject({ capacity: 3, isWanted: true });
    await replicas[0]?.hears('wanted pool');
    expect(await first.say({ held: 3, running: 3, heads: [head('a')] })).toMatchObject({ capacity: 3, isWanted: false });
    expect(first.held).toBe(3);
    await first.say({ capacity: 5, isCapacityNew: true, heads: [head('a', 10, 9)] });
    expect(first.held).toBe(5);
    await second.say({ capacity: 0, isCapacityNew: true });
    await first.say({ held: 0, running: 0, heads: [head('a')] });
    expect(first.held).toBe(0);
  });
}

function describeTimes(open: OpenPermits): void {
  // Planted: no start tag; no lift.
  it('counts charges of all replicas together, moves the level to the latest start, and lifts what begins', async () => {
    const { speakers } = await opened(open);
    const [first, second] = speakers;
    const one = await first.say({ charges: [charge('a', 130, { hasBegun: true, startedAfter: 100 }), charge('b', 5)] });
    expect(one).toMatchObject({ times: { interactive: 100, classes: 0 }, chargeTimes: [130, 105] });
    const two = await second.say({ charges: [charge('a', 20)], heads: [head('a'), head('new'), head('b')] });
    expect(two).toMatchObject({ chargeTimes: [150], headTimes: [150, 100, 105] });
    await second.say({ charges: [charge('b', -40)] });
    const three = await first.say({ charges: [charge('b', 7, { hasBegun: true })] });
    expect(three.chargeTimes).toEqual([107]);
  });

  // Planted: lifting whoever begins on one replica; bounding no refund, bounding each by what it is below already.
  it('lifts nobody who waits elsewhere, and lets a refund lead only so far below the level', async () => {
    const { speakers } = await saturated(open);
    const [first, second] = speakers;
    await first.say({ charges: [charge('a', 100), charge('x', 900, { startedAfter: 400 })], heads: [head('a')] });
    expect((await second.say({ charges: [charge('a', 1, { hasBegun: true })] })).chargeTimes).toEqual([101]);
    await first.say({ heads: [] });
    expect((await second.say({ charges: [charge('a', 1, { hasBegun: true })] })).chargeTimes).toEqual([401]);
    expect((await first.say({ charges: [charge('a', -300, { creditMax: 50 })] })).chargeTimes).toEqual([350]);
    expect((await first.say({ charges: [charge('a', -300, { creditMax: 20 })] })).chargeTimes).toEqual([350]);
  });

  // Planted: numbers without a format; %.14g shows at 2^49.
  it('keeps every unit of large times', async () => {
    const { speakers } = await opened(open);
    const [first, second] = speakers;
    await first.say({ charges: [charge('a', 2 ** 49 + 1)] });
    expect((await second.say({ charges: [charge('a', 1)] })).chargeTimes).toEqual([2 ** 49 + 2]);
  });

  it('begins to count again before units are lost, and says so', async () => {
    const { clock, speakers } = await opened(open);
    const [first, second] = speakers;
    const before = await first.say({ charges: [charge('a', 3, { startedAfter: 2 ** 50 })] });
    clock.advance(1);
    const after = await second.say({ charges: [charge('b', 9, { startedAfter: 5 })], heads: [head('a')] });
    expect(after.era).not.toBe(before.era);
    expect(after.headTimes).toEqual([0]);
  });

  // Planted: no number.
  it('counts a batch of charges once however often it is said', async () => {
    const { replicas } = await opened(open);
    const said = statement({ number: 50, charges: [charge('a', 30)] });
    for (let count = 0; count < 3; count++) expect((await replicas[0]?.exchange.exchange(said))?.chargeTimes).toEqual([30]);
    expect((await replicas[0]?.exchange.exchange({ ...said, number: 51 }))?.chargeTimes).toEqual([60]);
  });
}

function describeFailures(open: OpenPermits): void {
  // Planted: leases without an end.
  it('has the permits of a silent replica back after its lease, and forgets before that that it waits', async () => {
    const { speakers, clock } = await saturated(open);
    const [first, second] = speakers;
    await first.say({ heads: [head('a')], held: 6, running: 6 });
    await second.say({ heads: [] });
    clock.advance(permitTimes.waitingMs);
    expect((await second.say({ heads: [head('b', 10, 16)] })).isWanted).toBe(false);
    clock.advance(permitTimes.leaseMs - permitTimes.waitingMs - 1);
    await second.say({ heads: [head('b', 10, 16)] });
    expect(second.held).toBeLessThan(4);
    clock.advance(1);
    await second.say({ heads: [head('b', 10, 16)] });
    expect(second.held).toBe(8);
  });

  // Planted: placeholders without an end.
  it('takes back what was granted and not confirmed in time, and says what was lost', async () => {
    const { speakers, clock } = await saturated(open);
    const [first, second] = speakers;
    await second.say({ heads: [head('b')] });
    await first.say({ held: 7, running: 7, heads: [] });
    await first.say({ heads: [head('a')] });
    expect(first.held).toBe(7);
    clock.advance(permitTimes.placeholderMs);
    await first.say({ heads: [head('a')] });
    expect(first.held).toBe(8);
    const late = await second.say();
    expect(late.lost).toBe(1);
    expect(second.held).toBe(0);
  });

  it('hears again what was lost with an answer', async () => {
    const { speakers, replicas } = await saturated(open);
    const [first, second] = speakers;
    await second.say({ heads: [head('b')] });
    await first.say({ held: 7, running: 7 });
    const said = statement({ held: 0, granted: second.granted, heads: [head('b')] });
    const lost = await replicas[1]?.exchange.exchange(said);
    const again = await replicas[1]?.exchange.exchange({ ...said, heads: [] });
    expect(lost?.granted).toBe(second.granted + 1);
    expect(again?.granted).toBe(second.granted + 1);
    await first.say({ heads: [head('a', 10, 3)] });
    expect(first.held).toBe(7);
  });

  // Planted: no learning.
  it('knows that it may have forgotten: a replica gets no more than its part until all have spoken', async () => {
    const clock = new ManualClock();
    const [replica] = await open(clock, ['r0']);
    const speaker = new Speaker(replica as PermitReplica);
    await speaker.say({ part: 2, heads: [head('a', 10, 16)] });
    expect(speaker.held).toBe(2);
    clock.advance(permitTimes.learningMs - 1);
    await speaker.say({ part: 2, heads: [head('a', 10, 16)] });
    expect(speaker.held).toBe(2);
    clock.advance(1);
    await speaker.say({ part: 2, heads: [head('a', 10, 16)] });
    expect(speaker.held).toBe(8);
  });

  it('gives back at once what a replica held that leaves', async () => {
    const { speakers, replicas } = await saturated(open);
    await replicas[0]?.exchange.leave('pool');
    await speakers[1].say({ heads: [head('b', 10, 16)] });
    expect(speakers[1].held).toBe(8);
  });
}

const step = fc.record({
  replica: fc.integer({ min: 0, max: 2 }),
  freed: fc.integer({ min: 0, max: 4 }),
  waiting: fc.integer({ min: 0, max: 6 }),
  units: fc.integer({ min: 0, max: 1_000 }),
  afterMs: fc.constantFrom(0, 1, 100, 900),
  isAnswerLost: fc.boolean(),
});

function describeHistories(open: OpenPermits): void {
  // Planted: confirming a grant that was only said; a placeholder that is not counted.
  it('never lets replicas hold more than the capacity together, whatever is said and lost (invariant 23)', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 40 }), async (steps) => {
        const clock = new ManualClock();
        const replicas = await open(clock, ['r0', 'r1', 'r2']);
        const speakers = replicas.map((replica) => new Speaker(replica));
        const spokeAtMs = [0, 0, 0];
        for (const { replica, freed, waiting, units, afterMs, isAnswerLost } of steps) {
          clock.advance(afterMs);
          const nowMs = clock.monotonicMs();
          const speaker = speakers[replica] as Speaker;
          // One that was silent for long does not count on what it kept.
          if (nowMs - (spokeAtMs[replica] as number) >= permitTimes.placeholderMs) speaker.held = 0;
          spokeAtMs[replica] = nowMs;
          const { granted } = speaker;
          const held = Math.max(0, speaker.held - freed);
          const heads = waiting === 0 ? [] : [head(`t${replica}`, 10, waiting)];
          await speaker.say({ held, running: held, part: 2, heads, charges: [charge(`t${replica}`, units, { startedAfter: 0 })] });
          if (isAnswerLost) Object.assign(speaker, { held, granted });
          const counting = speakers.filter((_, index) => nowMs - (spokeAtMs[index] as number) < permitTimes.placeholderMs);
          const used = counting.reduce((sum, each) => sum + each.held, 0);
          expect(used).toBeLessThanOrEqual(8);
        }
      }),
      { numRuns: 25 },
    );
  });
}
