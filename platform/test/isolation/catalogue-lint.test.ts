/** Every defect of the list is planted in a real database and must be found, alone, by the rule that is there for it. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type CatalogueFinding, lintCatalogue } from '../../src/audit/catalogue-lint.ts';
import { openTestDatabase, type TestDatabase } from '../support/embedded-database.ts';
import { plants } from './planted-defects.ts';

let db: TestDatabase;
beforeAll(async () => {
  db = await openTestDatabase();
});
afterAll(async () => {
  await db[Symbol.asyncDispose]();
});

/** Lints inside the transaction that planted the defect, and takes it back. */
async function findingsWith(plant: string): Promise<readonly CatalogueFinding[]> {
  return db.database.withClient(async (client) => {
    await client.query('BEGIN');
    try {
      await client.query(plant);
      return await lintCatalogue(async (statement) => (await client.query(statement)).rows);
    } finally {
      await client.query('ROLLBACK');
    }
  });
}

describe('the catalogue lint', () => {
  it('finds nothing in the schema as it is', async () => {
    expect(await findingsWith('SELECT 1')).toEqual([]);
  });

  it.each(plants.map((plant) => [plant.defect, plant] as const))('finds %s', async (_, { plant, rules }) => {
    const found = new Set((await findingsWith(plant)).map((finding) => finding.rule));
    for (const rule of rules) expect(found).toContain(rule);
  });

  it('finds nothing again after every defect was taken back', async () => {
    expect(await findingsWith('SELECT 1')).toEqual([]);
  });
});
