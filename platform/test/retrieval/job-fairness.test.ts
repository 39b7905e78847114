/** Tenants take turns in the job queue, whatever is in it: waits, bounds, and what a claim costs. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ManualClock } from '../../src/primitives/clock.ts';
import type { ClaimedJob } from '../../src/rag/job-queue.ts';
import { Library } from './library.ts';

const clock = new ManualClock();
let library: Library;
beforeAll(async () => {
  library = await Library.open({ clock, jobsPerTenantMax: 3 });
});
afterAll(() => library[Symbol.asyncDispose]());

let jobCount = 0;

/** As a tenant's transaction leaves them: jobs, and the note of their arrival. */
async function enqueue(tenant: string, count: number, readyInMs = 0): Promise<void> {
  const first = jobCount;
  jobCount += count;
  await library.truth(
    `INSERT INTO control.job (id, tenant_id, kind, payload, envelope, created_at_ms, ready_at_ms)
     SELECT 'job_' || n, $1, 'ingest_file', '{}', '', 0, $4::bigint FROM generate_series($2::int, $3::int) AS n`,
    [tenant, first, first + count - 1, clock.nowMs() + readyInMs],
  );
}

async function clear(): Promise<void> {
  await library.truth('DELETE FROM control.job');
  await library.truth('DELETE FROM control.job_arrival');
  await library.truth('DELETE FROM control.job_turn');
}

/** A small random sequence that repeats. */
function sequence(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 48_271) % 2_147_483_647;
    return state / 2_147_483_647;
  };
}

interface Slot {
  freeAtMs: number;
  job: ClaimedJob | undefined;
}

interface Arrival {
  readonly tenant: string;
  readonly atMs: number;
}

/** Works with slots that are busy for the model's time of each job, until every arrival was claimed; how long each waited. */
async function simulate(arrivals: readonly Arrival[], slotCount: number, jobMs: () => number): Promise<ReadonlyMap<string, number>> {
  const startMs = clock.nowMs();
  const slots: Slot[] = Array.from({ length: slotCount }, () => ({ freeAtMs: startMs, job: undefined }));
  const pending = [...arrivals];
  const waits = new Map<string, number>();
  while (waits.size < arrivals.length) {
    const slot = slots.toSorted((left, right) => left.freeAtMs - right.freeAtMs)[0] as Slot;
    const nextArrivalMs = startMs + (pending[0]?.atMs ?? Number.POSITIVE_INFINITY);
    clock.advance(Math.max(0, Math.min(slot.freeAtMs, nextArrivalMs) - clock.nowMs()));
    if (nextArrivalMs <= slot.freeAtMs) {
      await enqueue(pending.shift()?.tenant ?? '', 1);
      continue;
    }
    if (slot.job !== undefined) await library.queue.complete(slot.job);
    slot.job = await library.queue.claim(3_600_000);
    const arrival = arrivals.find(({ tenant }) => tenant === slot.job?.tenantLabel);
    if (arrival !== undefined) waits.set(arrival.tenant, clock.nowMs() - startMs - arrival.atMs);
    slot.freeAtMs = clock.nowMs() + (slot.job === undefined ? 10 : jobMs());
  }
  for (const { job } of slots) if (job !== undefined) await library.queue.complete(job);
  return waits;
}

describe("one tenant's 5,000 files", () => {
  // Planted: serving in order of arrival (ORDER BY turn.next_ready_ms).
  test.each([1, 3])("delay another's single page by at most the rest of one job, with %i slots", async (slots) => {
    await clear();
    await enqueue('whale', 5_000);
    const random = sequence(slots);
    const longestMs = 20_000;
    const jobMs = () => 50 + Math.floor(random() ** 2 * (longestMs - 50));
    // Far enough apart that none waits for another minnow.
    const arrivals = Array.from({ length: 4 }, (_, index) => ({ tenant: `minnow-${index}`, atMs: 1_000 + index * 31_000 }));
    const waits = await simulate(arrivals, slots, jobMs);
    expect(waits.size).toBe(4);
    expect(Math.max(...waits.values())).toBeLessThanOrEqual(longestMs);
  });

  test('of ten tenants delay an eleventh by one job, not by ten', async () => {
    await clear();
    for (let whale = 0; whale < 10; whale++) await enqueue(`whale-${whale}`, 50);
    const waits = await simulate([{ tenant: 'minnow', atMs: 30_500 }], 1, () => 1_000);
    expect(waits.get('minnow')).toBeLessThanOrEqual(1_000);
  });
});

describe('a tenant', () => {
  test('has at most so many jobs running, whoever claims', async () => {
    await clear();
    await enqueue('whale', 10);
    const held = [];
    for (let count = 0; count < 3; count++) held.push(await library.queue.claim(60_000));
    expect(held.map((job) => job?.tenantLabel)).toEqual(['whale', 'whale', 'whale']);
    expect(await library.queue.claim(60_000)).toBeUndefined();
    await enqueue('minnow', 1);
    expect((await library.queue.claim(60_000))?.tenantLabel).toBe('minnow');
    if (held[0] !== undefined) await library.queue.complete(held[0]);
    expect((await library.queue.claim(60_000))?.tenantLabel).toBe('whale');
    expect(await library.queue.claim(60_000)).toBeUndefined();
  });

  test('whose jobs are for later is looked at again when the first of them is ready', async () => {
    await clear();
    await enqueue('later', 1, 5_000);
    await enqueue('later', 1, 2_000);
    expect(await library.queue.claim(60_000)).toBeUndefined();
    clock.advance(1_999);
    expect(await library.queue.claim(60_000)).toBeUndefined();
    clock.advance(1);
    const job = await library.queue.claim(60_000);
    expect(job?.tenantLabel).toBe('later');
    expect(await library.queue.claim(60_000)).toBeUndefined();
    clock.advance(3_000);
    expect((await library.queue.claim(60_000))?.tenantLabel).toBe('later');
  });

  test('that is turned off and on again in the middle loses no job', async () => {
    await clear();
    await enqueue('steady', 2);
    const first = await library.queue.claim(60_000);
    if (first !== undefined) await library.queue.release(first, { delayMs: 500, countsAsAttempt: false });
    const second = await library.queue.claim(60_000);
    expect(second?.id).not.toBe(first?.id);
    expect(await library.queue.claim(60_000)).toBeUndefined();
    clock.advance(500);
    expect((await library.queue.claim(60_000))?.id).toBe(first?.id);
    // The worker of the other one dies.
    clock.advance(60_000);
    expect((await library.queue.claim(60_000))?.id).toBe(second?.id);
  });
});

describe('a claim', () => {
  /** Pages of the database that one claim reads, in whatever state the machine is. */
  async function pagesOfClaim(): Promise<number> {
    const rows = await library.truth<{ 'QUERY PLAN': readonly { Plan: { 'Shared Hit Blocks': number; 'Shared Read Blocks': number } }[] }>(
      `EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM control.claim_job(${clock.nowMs()}, 'lease-${jobCount++}', 60000, 3)`,
    );
    const plan = rows[0]?.['QUERY PLAN'][0]?.Plan;
    return (plan?.['Shared Hit Blocks'] ?? 0) + (plan?.['Shared Read Blocks'] ?? 0);
  }

  // Planted: the index on the turns left out; 1,000 tenants were then read for each claim.
  test('reads no more of a queue of 100,000 jobs of 1,000 tenants than of a small one', async () => {
    await clear();
    await library.truth(
      `INSERT INTO control.job (id, tenant_id, kind, payload, envelope, created_at_ms, ready_at_ms)
       SELECT 'crowd_' || n, 'crowd-' || (n % 1000), 'ingest_file', '{}', '', 0, 0 FROM generate_series(1, 100000) AS n`,
    );
    // Jobs of the far future of 1,000 more, as expiring files leave them.
    await library.truth(
      `INSERT INTO control.job (id, tenant_id, kind, payload, envelope, created_at_ms, ready_at_ms)
       SELECT 'future_' || n, 'future-' || (n % 1000), 'expire_file', '{}', '', 0, 9000000000000 FROM generate_series(1, 5000) AS n`,
    );
    // The first one reads the arrivals away.
    await pagesOfClaim();
    await pagesOfClaim();
    const pages = [];
    for (let count = 0; count < 5; count++) pages.push(await pagesOfClaim());
    expect(Math.max(...pages)).toBeLessThan(250);
  });
});
