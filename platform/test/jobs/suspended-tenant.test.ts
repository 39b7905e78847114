/** Jobs of a suspended tenant wait until it is resumed; those of a tenant that goes are gone with it. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { PostgresTenantDirectory } from '../../src/adapters/postgres/tenant-directory.ts';
import { BulkheadError } from '../../src/errors/bulkhead-error.ts';
import { systemClock } from '../../src/primitives/clock.ts';
import { mintOperatorScope } from '../../src/tenancy/mint-operator-scope.ts';
import { chunking, hashedEmbedder, Library } from '../retrieval/library.ts';
import { tenantId } from '../support/embedded-database.ts';

const operator = mintOperatorScope('test');
let library: Library;
let directory: PostgresTenantDirectory;
let suspendedInTheMiddle = false;

beforeAll(async () => {
  library = await Library.open({
    embedder: {
      embed(texts, signal) {
        if (suspendedInTheMiddle) throw new BulkheadError('tenant_suspended', 'The tenant of this job is suspended.');
        return hashedEmbedder.embed(texts, signal);
      },
    },
  });
  directory = new PostgresTenantDirectory(library.db.database, systemClock);
  for (const id of ['acme', 'globex'])
    await directory.create(operator, { id: tenantId(id), name: id, tier: 'free', isolation: 'pooled', overrides: {} });
});
afterAll(async () => {
  await library[Symbol.asyncDispose]();
});

async function enqueue(tenant: string) {
  const { files, vectorStores } = library.shelves(tenant);
  const file = await files.create({ filename: 'a.txt', purpose: 'assistants', body: Buffer.from('the rent is due') });
  const store = await vectorStores.create({ name: 'x', metadata: {} });
  await vectorStores.attachFile(store.id, { fileId: file.id, attributes: {}, chunking });
  return async () => (await vectorStores.getFile(store.id, file.id))?.status;
}

const jobs = (tenant: string) =>
  library.truth<{ readonly attempts: number }>('SELECT attempts FROM control.job WHERE tenant_id = $1', [tenant]);

test('wait while it is suspended, keep nobody waiting, and go on when it is resumed', async () => {
  const status = await enqueue('acme');
  const other = await enqueue('globex');
  await directory.update(operator, tenantId('acme'), { state: 'suspended' });
  expect(await library.worker.drain()).toBe(1);
  expect([await status(), await other()]).toEqual(['in_progress', 'completed']);
  expect(await jobs('acme')).toEqual([{ attempts: 0 }]);
  await directory.update(operator, tenantId('acme'), { state: 'active' });
  expect(await library.worker.drain()).toBe(1);
  expect(await status()).toBe('completed');
});

test('that run when it is suspended are given back unharmed', async () => {
  const status = await enqueue('acme');
  suspendedInTheMiddle = true;
  const job = library.worker.drain(AbortSignal.timeout(100));
  await job;
  suspendedInTheMiddle = false;
  expect(await jobs('acme')).toEqual([{ attempts: 0 }]);
  expect(await status()).toBe('in_progress');
  await library.worker.drain();
  expect(await status()).toBe('completed');
});

test('are gone with a tenant that goes', async () => {
  await enqueue('acme');
  await enqueue('globex');
  await directory.update(operator, tenantId('acme'), { state: 'deleting' });
  expect(await jobs('acme')).toEqual([]);
  expect(await library.worker.drain()).toBe(1);
});
