import { sql } from 'kysely';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { openTestDatabase, principalOf, type TestDatabase } from '../support/embedded-database.ts';

/**
 * The embedded engine has one session for all connections. Statements of the login outside a transaction, with parameters, beside transactions of several
 * tenants: nothing of one may come into another. The planted fault, sending them as they are, fails within the first hundred.
 */
let test: TestDatabase;
beforeAll(async () => {
  test = await openTestDatabase();
});
afterAll(() => test[Symbol.asyncDispose]());

const rounds = 150;

async function tenantRounds(tenant: string): Promise<readonly string[]> {
  const database = test.database.forTenant(principalOf(tenant));
  const seen: string[] = [];
  for (let round = 0; round < rounds; round++) {
    const work = round % 3 === 0 ? database.write.bind(database) : database.read.bind(database);
    const answers = await work(async (db) => {
      const before = await sql<{ readonly tenant: string }>`SELECT app.current_tenant() AS tenant, ${round}::int`.execute(db);
      const after = await sql<{ readonly tenant: string }>`SELECT app.current_tenant() AS tenant, ${round}::int`.execute(db);
      return [...before.rows, ...after.rows].map((row) => row.tenant);
    });
    seen.push(...answers);
  }
  return seen;
}

async function loginRounds(): Promise<readonly number[]> {
  const answers: number[] = [];
  for (let round = 0; round < 2 * rounds; round++) {
    const { rows } = await test.database.withClient((client) =>
      client.query<{ readonly answer: number }>('SELECT $1::int AS answer', [round]),
    );
    answers.push(rows[0]?.answer ?? -1);
  }
  return answers;
}

it('keeps statements of the login out of the transactions of tenants, and tenants out of each other’s', async () => {
  const tenants = ['acme', 'globex', 'initech'];
  const [login, again, ...seen] = await Promise.all([loginRounds(), loginRounds(), ...tenants.map(tenantRounds)]);
  expect(login).toEqual(Array.from({ length: 2 * rounds }, (_, round) => round));
  expect(again).toEqual(login);
  for (const [index, tenant] of tenants.entries()) expect(new Set(seen[index])).toEqual(new Set([tenant]));
}, 120_000);

it('takes a refused statement back and goes on', async () => {
  await test.database.withClient(async (client) => {
    await expect(client.query('SELECT 1 / $1::int', [0])).rejects.toMatchObject({ code: '22012' });
    expect(client.getTransactionStatus()).toBe('I');
    expect((await client.query<{ readonly answer: number }>('SELECT $1::int AS answer', [7])).rows).toEqual([{ answer: 7 }]);
  });
});
