import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openIdempotencyCabinet } from '../../src/adapters/postgres/idempotency.ts';
import { ManualClock } from '../../src/primitives/clock.ts';
import { openTestDatabase, principalOf, type TestDatabase } from '../support/embedded-database.ts';

let db: TestDatabase;
const clock = new ManualClock();
beforeAll(async () => {
  db = await openTestDatabase();
});
afterAll(async () => {
  await db[Symbol.asyncDispose]();
});

const cabinet = (tenant: string) => openIdempotencyCabinet(db.database.forTenant(principalOf(tenant)), clock);

describe('idempotency keys', () => {
  it('are each tenant’s own', async () => {
    const [acme, globex] = [cabinet('acme'), cabinet('globex')];
    expect(await acme.claim('POST /v1/x', 'same', 'a')).toEqual({ kind: 'claimed' });
    expect(await globex.claim('POST /v1/x', 'same', 'b')).toEqual({ kind: 'claimed' });
    await acme.complete('POST /v1/x', 'same', { status: 200, body: 'secret of acme' });
    expect(await globex.claim('POST /v1/x', 'same', 'b')).toEqual({ kind: 'running' });
    expect(await acme.claim('POST /v1/x', 'same', 'a')).toEqual({ kind: 'done', status: 200, body: 'secret of acme' });
    expect(await acme.claim('POST /v1/x', 'same', 'other')).toEqual({ kind: 'mismatch' });
    expect(await acme.claim('POST /v1/y', 'same', 'other')).toEqual({ kind: 'claimed' });
  });

  it('are free again when released, after 15 minutes when abandoned, after 24 hours when answered', async () => {
    const acme = cabinet('acme');
    await acme.claim('r', 'released', 'a');
    await acme.release('r', 'released');
    expect(await acme.claim('r', 'released', 'b')).toEqual({ kind: 'claimed' });
    await acme.claim('r', 'abandoned', 'a');
    await acme.claim('r', 'answered', 'a');
    await acme.complete('r', 'answered', { status: 200, body: '1' });
    clock.advance(15 * 60_000);
    expect((await acme.claim('r', 'abandoned', 'a')).kind).toBe('running');
    clock.advance(1);
    expect((await acme.claim('r', 'abandoned', 'a')).kind).toBe('claimed');
    expect((await acme.claim('r', 'answered', 'a')).kind).toBe('done');
    clock.advance(24 * 3_600_000);
    expect((await acme.claim('r', 'answered', 'b')).kind).toBe('claimed');
  });

  it('are claimed once by many at the same time', async () => {
    const acme = cabinet('acme');
    const claims = await Promise.all(Array.from({ length: 20 }, () => acme.claim('r', 'race', 'a')));
    expect(claims.filter((claim) => claim.kind === 'claimed')).toHaveLength(1);
  });
});
