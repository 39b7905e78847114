import fc from 'fast-check';
import { sql } from 'kysely';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openResponseCabinet } from '../../src/adapters/postgres/responses.ts';
import { PostgresTenantDirectory } from '../../src/adapters/postgres/tenant-directory.ts';
import { systemClock } from '../../src/primitives/clock.ts';
import { mintOperatorScope } from '../../src/tenancy/mint-operator-scope.ts';
import { openTestDatabase, principalOf, type TestDatabase, tenantId } from '../support/embedded-database.ts';

let db: TestDatabase;
beforeAll(async () => {
  db = await openTestDatabase();
  const directory = new PostgresTenantDirectory(db.database, systemClock);
  for (const id of ['acme', 'globex', 'initech', 'umbrella']) {
    await directory.create(mintOperatorScope('test'), { id: tenantId(id), name: id, tier: 'free', isolation: 'pooled', overrides: {} });
  }
});
afterAll(async () => {
  await db[Symbol.asyncDispose]();
});

const insert = (id: string) => sql`INSERT INTO app.response (id, created_at_ms, response, input_items) VALUES (${id}, 1, '\\x01', '\\x01')`;

/** What the login itself sees, past every wall: where rows really are. */
async function truth(): Promise<readonly { readonly tenant_id: string; readonly id: string }[]> {
  return db.database.withClient(async (client) => (await client.query('SELECT tenant_id, id FROM app.response')).rows);
}

describe('tenant data in the database', () => {
  it('is written under the tenant of the principal, who cannot even name another', async () => {
    await db.database.forTenant(principalOf('acme')).write((q) => insert('own').execute(q));
    expect((await truth()).find((row) => row.id === 'own')?.tenant_id).toBe('acme');
    const naming = db.database
      .forTenant(principalOf('acme'))
      .write((q) =>
        sql`INSERT INTO app.response (tenant_id, id, created_at_ms, response, input_items) VALUES ('globex', 'x', 1, '\\x01', '\\x01')`.execute(
          q,
        ),
      );
    await expect(naming).rejects.toMatchObject({ sqlState: '42501' });
  });

  it('is invisible, unchangeable and undeletable for another tenant', async () => {
    const globex = db.database.forTenant(principalOf('globex'));
    const seen = await globex.read((q) => sql`SELECT * FROM app.response WHERE id = 'own'`.execute(q));
    expect(seen.rows).toEqual([]);
    const deleted = await globex.write((q) => sql`DELETE FROM app.response WHERE id = 'own' RETURNING id`.execute(q));
    expect(deleted.rows).toEqual([]);
    expect((await truth()).some((row) => row.id === 'own')).toBe(true);
  });

  it('may have the same id in two tenants, so ids tell nothing about others', async () => {
    await db.database.forTenant(principalOf('globex')).write((q) => insert('own').execute(q));
    expect(
      (await truth())
        .filter((row) => row.id === 'own')
        .map((row) => row.tenant_id)
        .toSorted(),
    ).toEqual(['acme', 'globex']);
  });

  it('cannot be reached without a tenant, on a fresh connection and on a used one', async () => {
    for (let attempt = 0; attempt < 3; attempt++) {
      const bare = db.database.transaction({ role: 'bulkhead_runtime', readOnly: true }, (q) => sql`SELECT * FROM app.response`.execute(q));
      await expect(bare).rejects.toMatchObject({ sqlState: '42501' });
    }
  });

  it('leaves no tenant and no role behind on the connection', async () => {
    await db.database.forTenant(principalOf('acme')).read((q) => sql`SELECT 1`.execute(q));
    const after = await db.database.withClient(
      async (client) => (await client.query("SELECT current_setting('app.tenant_id', true) AS tenant, current_user AS role")).rows[0],
    );
    expect(after).toEqual({ tenant: '', role: 'postgres' });
  });

  it('is out of reach of the control and ledger roles', async () => {
    const asOperator = db.database.forOperator(mintOperatorScope('test')).read((q) => sql`SELECT * FROM app.response`.execute(q));
    await expect(asOperator).rejects.toMatchObject({ sqlState: '42501' });
    const asLedger = db.database.forLedger().append((q) => sql`SELECT * FROM app.response`.execute(q));
    await expect(asLedger).rejects.toMatchObject({ sqlState: '42501' });
  });

  it.each([
    ['TRUNCATE', 'TRUNCATE app.response'],
    ['row_security off', 'SET LOCAL row_security = off; SELECT 1'],
    ['COPY FROM', 'COPY app.response FROM STDIN'],
    ['create a table', 'CREATE TABLE app.mine (x int)'],
    ['the tenants', 'SELECT * FROM control.tenant'],
    ['the keys', 'SELECT * FROM control.api_key'],
    ['a foreign update of tenant_id', "UPDATE app.idempotency SET tenant_id = 'globex'"],
  ])('refuses the runtime role: %s', async (_, text) => {
    const work = db.database.forTenant(principalOf('acme')).write((q) => sql.raw(text).execute(q));
    await expect(work).rejects.toThrow();
    expect(await db.database.probe()).toBe(true);
  });

  it('reads nothing foreign over 300 interleaved transactions, a tenth of them aborted', async () => {
    const tenants = ['acme', 'globex', 'initech', 'umbrella'];
    const outcomes = await Promise.all(
      Array.from({ length: 300 }, async (_, index) => {
        const tenant = tenants[index % tenants.length] as string;
        const database = db.database.forTenant(principalOf(tenant));
        if (index % 10 === 9) {
          const aborted = database.write(async (q) => {
            await insert(`aborted-${index}`).execute(q);
            throw new Error('planned');
          });
          await expect(aborted).rejects.toThrow('planned');
          return 0;
        }
        const rows = await database.write(async (q) => {
          await insert(`row-${index}`).execute(q);
          return (await sql<{ readonly tenant_id: string }>`SELECT tenant_id FROM app.response`.execute(q)).rows;
        });
        return rows.filter((row) => row.tenant_id !== tenant).length;
      }),
    );
    expect(outcomes.filter((foreign) => foreign > 0)).toEqual([]);
    expect((await truth()).filter((row) => row.id.startsWith('aborted'))).toEqual([]);
  });

  it('keeps conversations apart for every id, own or foreign', async () => {
    const cabinets = {
      acme: openResponseCabinet(db.database.forTenant(principalOf('acme'))),
      globex: openResponseCabinet(db.database.forTenant(principalOf('globex'))),
    };
    await fc.assert(
      fc.asyncProperty(
        fc.string({ minLength: 1, maxLength: 40 }).filter((id) => !id.includes('\0') && id.isWellFormed()),
        async (id) => {
          await cabinets.acme.create({ id: `p-${id}`, createdAtMs: 1, response: { secret: id }, inputItems: [] });
          expect(await cabinets.globex.get(`p-${id}`)).toBeUndefined();
          expect(await cabinets.globex.chain(`p-${id}`)).toBeUndefined();
          expect(await cabinets.globex.delete(`p-${id}`)).toBe(false);
          expect((await cabinets.acme.get(`p-${id}`))?.response).toEqual({ secret: id });
          expect(await cabinets.acme.delete(`p-${id}`)).toBe(true);
        },
      ),
      { numRuns: 40 },
    );
  });
});
