/** Rows that stand where they were not sealed for: whoever has the database can put them there, and nobody reads them. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { openIdempotencyCabinet } from '../../src/adapters/postgres/idempotency.ts';
import { openResponseCabinet } from '../../src/adapters/postgres/responses.ts';
import { systemClock } from '../../src/primitives/clock.ts';
import type { IdempotencyClaim, TenantCapabilities } from '../../src/tenancy/capabilities.ts';
import { Library, question } from '../retrieval/library.ts';

const refused = { code: 'sealed_data_unreadable' };
const canary = 'the walnut desk of the harbour master';
let library: Library;
let acme: Tenant;
let globex: Tenant;

interface Tenant extends Pick<TenantCapabilities, 'files' | 'vectorStores' | 'responses' | 'idempotency'> {
  readonly id: string;
}

function tenantOf(id: string): Tenant {
  const { files, vectorStores, principal } = library.shelves(id);
  const database = library.db.database.forTenant(principal);
  return { id, files, vectorStores, responses: openResponseCabinet(database), idempotency: openIdempotencyCabinet(database, systemClock) };
}

async function bodyOf(tenant: Tenant, fileId: string): Promise<string> {
  const content = await tenant.files.read(fileId);
  if (content === undefined) throw new Error('no such file');
  return Buffer.concat(await Array.fromAsync(content.parts)).toString();
}

const response = (id: string, said: string) => ({ id, createdAtMs: 1, response: { said }, inputItems: [{ said }] });

async function answered(tenant: Tenant, key: string, body: string): Promise<void> {
  await tenant.idempotency.claim('POST /v1/x', key, 'hash');
  await tenant.idempotency.complete('POST /v1/x', key, { status: 200, body });
}

const replay = (tenant: Tenant, key: string): Promise<IdempotencyClaim> => tenant.idempotency.claim('POST /v1/x', key, 'hash');

beforeAll(async () => {
  library = await Library.open();
  acme = tenantOf('acme');
  globex = tenantOf('globex');
});
beforeEach(() => {
  library.alarms.length = 0;
});
afterAll(async () => {
  await library[Symbol.asyncDispose]();
});

describe('what is stored', () => {
  it('comes back as it was, through every way that reads it', async () => {
    const large = Buffer.alloc(2_500_000, 'abc');
    const file = await acme.files.create({ filename: 'a.txt', purpose: 'assistants', body: large });
    expect(await bodyOf(acme, file.id)).toBe(large.toString());
    const storeId = await library.storeOf('acme', [`${canary} stands by the window`]);
    const [found] = (await acme.vectorStores.search(storeId, question('walnut desk'))) ?? [];
    expect(found?.text).toContain(canary);
    expect((await acme.vectorStores.fileContent(storeId, found?.fileId ?? ''))?.join('')).toContain(canary);
    await acme.responses.create(response('resp_own', canary));
    expect((await acme.responses.chain('resp_own'))?.[0]).toMatchObject({ response: { said: canary }, inputItems: [{ said: canary }] });
    await answered(acme, 'own', canary);
    expect(await replay(acme, 'own')).toEqual({ kind: 'done', status: 200, body: canary });
    expect(library.alarms).toEqual([]);
  });

  it('is nowhere in the sealed columns as it was said', async () => {
    const columns = await library.truth<{ bytes: Buffer }>(
      'SELECT content AS bytes FROM app.chunk UNION ALL SELECT body FROM app.file_part UNION ALL SELECT response FROM app.response UNION ALL SELECT input_items FROM app.response UNION ALL SELECT body FROM app.idempotency',
    );
    expect(columns.length).toBeGreaterThan(6);
    for (const { bytes } of columns) {
      expect(bytes[0]).toBe(1);
      expect(bytes.includes('walnut')).toBe(false);
    }
  });

  it('cannot be stored in plain by code that forgets to seal', async () => {
    const attempt = library.truth("UPDATE app.response SET response = convert_to('{}', 'UTF8')");
    await expect(attempt).rejects.toMatchObject({ sqlState: '23514' });
  });
});

describe('a row that was moved', () => {
  it('to another tenant does not open: a chunk, in a search and as a file’s content', async () => {
    const storeId = await library.storeOf('globex', ['a plain page about oranges', 'another about lemons']);
    const secret = await library.storeOf('acme', [canary]);
    await library.truth(
      `UPDATE app.chunk SET content = (SELECT content FROM app.chunk c JOIN app.vector_store s USING (tenant_id, store_no) WHERE s.id = $1)
        WHERE tenant_id = 'globex' AND store_no = (SELECT store_no FROM app.vector_store WHERE id = $2) AND file_no = 1`,
      [secret, storeId],
    );
    await expect(globex.vectorStores.search(storeId, question('oranges'))).rejects.toMatchObject(refused);
    const [file] = (await globex.vectorStores.listFiles(storeId, { limit: 10, order: 'asc' }, {}))?.items ?? [];
    await expect(globex.vectorStores.fileContent(storeId, file?.id ?? '')).rejects.toMatchObject(refused);
    expect(library.alarms).toEqual(['globex chunk.content', 'globex chunk.content']);
  });

  it('to another tenant does not open: a file’s body', async () => {
    const mine = await globex.files.create({ filename: 'b.txt', purpose: 'assistants', body: Buffer.from('mine') });
    const theirs = await acme.files.create({ filename: 'a.txt', purpose: 'assistants', body: Buffer.from('secr') });
    await library.truth('UPDATE app.file_part SET body = (SELECT body FROM app.file_part WHERE file_id = $1) WHERE file_id = $2', [
      theirs.id,
      mine.id,
    ]);
    await expect(bodyOf(globex, mine.id)).rejects.toMatchObject(refused);
    expect(library.alarms).toEqual(['globex file_part.body']);
  });

  it('to another tenant does not open: a response, whole row and all', async () => {
    await acme.responses.create(response('resp_moved', canary));
    await globex.responses.create(response('resp_other', 'so that there is a key'));
    await library.truth("UPDATE app.response SET tenant_id = 'globex' WHERE id = 'resp_moved'");
    await expect(globex.responses.get('resp_moved')).rejects.toMatchObject(refused);
    await expect(globex.responses.chain('resp_moved')).rejects.toMatchObject(refused);
    expect(library.alarms).toEqual(['globex response.response', 'globex response.response']);
  });

  it('to another tenant does not open, not even together with its data key', async () => {
    await acme.responses.create(response('resp_with_key', canary));
    await library.truth(
      "INSERT INTO app.data_key (tenant_id, version, master_key_id, wrapped) SELECT 'thief', version, master_key_id, wrapped FROM app.data_key WHERE tenant_id = 'acme'",
    );
    await library.truth("UPDATE app.response SET tenant_id = 'thief' WHERE id = 'resp_with_key'");
    await expect(tenantOf('thief').responses.get('resp_with_key')).rejects.toMatchObject(refused);
    expect(library.alarms).toEqual(['thief data_key.wrapped']);
  });

  it('to another row of the same tenant does not open', async () => {
    await acme.responses.create(response('resp_a', 'first'));
    await acme.responses.create(response('resp_b', 'second'));
    await library.truth("UPDATE app.response SET response = (SELECT response FROM app.response WHERE id = 'resp_a') WHERE id = 'resp_b'");
    await expect(acme.responses.get('resp_b')).rejects.toMatchObject(refused);
    expect(library.alarms).toEqual(['acme response.response']);
  });

  it('to another column of the same row does not open', async () => {
    await acme.responses.create(response('resp_c', 'third'));
    await library.truth("UPDATE app.response SET input_items = response WHERE id = 'resp_c'");
    await expect(acme.responses.get('resp_c')).rejects.toMatchObject(refused);
    expect(library.alarms).toEqual(['acme response.input_items']);
  });

  it('to another key of a kept answer does not open', async () => {
    await answered(acme, 'one', 'the answer to one');
    await answered(acme, 'two', 'the answer to two');
    await library.truth("UPDATE app.idempotency SET body = (SELECT body FROM app.idempotency WHERE key = 'one') WHERE key = 'two'");
    await expect(replay(acme, 'two')).rejects.toMatchObject(refused);
    expect(library.alarms).toEqual(['acme idempotency.body']);
  });
});
