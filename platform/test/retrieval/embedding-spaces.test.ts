/** A store's vectors by one model are a space. While it is embedded anew it has two: a search reads one, and what goes takes both along. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { embedText } from '../../src/adapters/hashed-embedder/embed-text.ts';
import { vectorText } from '../../src/adapters/postgres/vector-text.ts';
import { fingerprint, Library, question, rowsOf } from './library.ts';

let library: Library;
beforeAll(async () => {
  library = await Library.open();
}, 60_000);
afterAll(() => library[Symbol.asyncDispose]());

const texts = ['The landlord repairs the roof.', 'The tenant pays the rent.', 'Pets need consent.'];

/** As the owner: a second space beside the active one, in which every vector is that of another text. */
async function plantSpace(storeId: string, dimensions: number): Promise<void> {
  const vector = vectorText(embedText('nothing of the kind', dimensions));
  await library.truth(
    `UPDATE app.vector_store SET building_space_no = 2, building_model = 'next', building_dimensions = ${dimensions}, next_space_no = 3 WHERE id = $1`,
    [storeId],
  );
  await library.truth(
    `INSERT INTO app.embedding_${dimensions} (tenant_id, shard_id, store_no, space_no, file_no, ordinal, embedding)
     SELECT c.tenant_id, c.shard_id, c.store_no, 2, c.file_no, c.ordinal, $2::public.vector
       FROM app.chunk c JOIN app.vector_store s USING (tenant_id, store_no) WHERE s.id = $1`,
    [storeId, vector],
  );
}

const vectorsOf = async (tenant: string) => {
  const count = (table: string) => `(SELECT count(*)::int FROM app.${table} WHERE tenant_id = '${tenant}') AS ${table}`;
  const [row] = await library.truth(`SELECT ${count('embedding_384')}, ${count('embedding_768')}`);
  return row;
};

describe.each([384, 768])('a second space of %i dimensions', (dimensions) => {
  test('changes no answer', async () => {
    const { vectorStores } = library.shelves(`reader-${dimensions}`);
    const storeId = await library.storeOf(`reader-${dimensions}`, texts);
    const ask = async () => fingerprint(await vectorStores.search(storeId, question('who repairs the roof')));
    const before = await ask();
    await plantSpace(storeId, dimensions);
    expect(await ask()).toBe(before);
    await library.truth('UPDATE app.vector_store SET revision = revision + 1 WHERE id = $1', [storeId]);
    expect(await ask()).toBe(before);
  });

  test('goes with a file, with a detached file and with the store', async () => {
    const tenant = `leaver-${dimensions}`;
    const { files, vectorStores } = library.shelves(tenant);
    const storeId = await library.storeOf(tenant, texts);
    await plantSpace(storeId, dimensions);
    const [first, second] = (await vectorStores.listFiles(storeId, { limit: 10, order: 'asc' }, {}))?.items ?? [];
    await files.delete(first?.id ?? '');
    expect(await vectorsOf(tenant)).toEqual(
      dimensions === 384 ? { embedding_384: 4, embedding_768: 0 } : { embedding_384: 2, embedding_768: 2 },
    );
    await vectorStores.detachFile(storeId, second?.id ?? '');
    expect(await vectorsOf(tenant)).toEqual(
      dimensions === 384 ? { embedding_384: 2, embedding_768: 0 } : { embedding_384: 1, embedding_768: 1 },
    );
    await vectorStores.delete(storeId);
    expect(await vectorsOf(tenant)).toEqual({ embedding_384: 0, embedding_768: 0 });
    expect(await rowsOf(library, tenant)).toMatchObject({ chunk: 0, posting: 0 });
  });
});

test('a shard that is made later has the space in its keys', async () => {
  await library.truth("INSERT INTO control.tenant (id, name, tier, created_at_ms) VALUES ('whale', 'Whale', 'free', 0)");
  await library.truth("SELECT control.create_shard(1000, 'whale')");
  const keys = await library.truth<{ definition: string }>(
    `SELECT pg_get_constraintdef(oid) AS definition FROM pg_constraint WHERE contype = 'p' AND conrelid::regclass::text LIKE 'app.embedding\\_%'`,
  );
  expect(keys).toHaveLength(5 * 6);
  expect(new Set(keys.map((key) => key.definition))).toEqual(
    new Set(['PRIMARY KEY (tenant_id, store_no, space_no, file_no, ordinal, shard_id)']),
  );
});
