/** Everything a tenant owns goes into a signed archive and comes in under another id, whole or not at all. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { OwnerDatabase } from '../../src/adapters/postgres/owner-database.ts';
import { PostgresTenantExporter } from '../../src/adapters/postgres/tenant-exporter.ts';
import { PostgresTenantImporter } from '../../src/adapters/postgres/tenant-importer.ts';
import { DirectoryArchiveShelf } from '../../src/adapters/tenant-archive/archive-shelf.ts';
import { systemClock } from '../../src/primitives/clock.ts';
import { DocumentSigner } from '../../src/primitives/signed-document.ts';
import { silentLogger } from '../../src/telemetry/logger.ts';
import { principalOf, tenantId } from '../support/embedded-database.ts';
import { type ErasureWorld, openErasureWorld, operator, signer } from './erasure-world.ts';

const { signal } = new AbortController();
const engine = process.env['BULKHEAD_TEST_ENGINE'] === 'server' ? 'server' : 'embedded';
/** A server exports tenants that are served. */
const itEmbedded = engine === 'server' ? () => {} : it;
const texts = [
  'The pump loses pressure in winter.',
  'The lease is signed by the tenant.',
  'A storm damaged the roof; the report is attached.',
];
const bounds = { archiveBytesMax: 100_000_000, memberBytesMax: 20_000_000, membersMax: 1_000 };
let world: ErasureWorld;
let shelf: DirectoryArchiveShelf;
let store = '';

function importerWith(onMember?: (name: string) => void | Promise<void>): PostgresTenantImporter {
  const { shared, homes } = world.silo;
  const owner = new OwnerDatabase(operator, shared, engine);
  return new PostgresTenantImporter({
    shared,
    homes,
    owner,
    clock: systemClock,
    logger: silentLogger,
    isOnlyProcess: true,
    ...(onMember && { onMember }),
  });
}

async function exportTenant(): Promise<void> {
  const { shared, homes } = world.silo;
  const exporter = new PostgresTenantExporter({ shared, homes, directory: world.directory, engine });
  await using archive = await shelf.create(tenantId('acme'));
  const rows = await exporter.export(operator, principalOf('acme'), { sink: archive, signal });
  await archive.finish({ tenant: { id: 'acme', name: 'Acme', tier: 'free', overrides: {} }, exportedAt: '2026-11-27T00:00:00.000Z', rows });
}

const importAs = async (id: string, importer = importerWith()) =>
  importer.import(operator, principalOf(id), { source: await shelf.open('acme.tar', undefined), signal });

/** As a superuser: rows of a tenant in every table. */
async function rowsOf(id: string): Promise<number> {
  return world.silo.shared.withClient(async (client) => {
    const { rows: tables } = await client.query<{ readonly name: string }>(
      `SELECT table_schema || '.' || table_name AS name FROM information_schema.columns WHERE column_name = 'tenant_id' AND table_schema IN ('app', 'control')`,
    );
    let count = 0;
    for (const { name } of tables) {
      const { rows } = await client.query<{ readonly count: string }>(`SELECT count(*) FROM ${name} WHERE tenant_id = $1`, [id]);
      count += Number(rows[0]?.count);
    }
    return count;
  });
}

beforeAll(async () => {
  world = await openErasureWorld();
  shelf = new DirectoryArchiveShelf({ dataDir: world.silo.dataDir, signer, bounds });
  await world.silo.addTenant('acme');
  store = await world.fill('acme', texts);
});
afterAll(() => world[Symbol.asyncDispose]());

describe('a tenant that is exported', () => {
  itEmbedded('is suspended first, with the embedded database', async () => {
    await expect(exportTenant()).rejects.toMatchObject({ code: 'not_ready' });
  });

  it('comes in under another id and finds the same, bit for bit', async () => {
    const before = await world.ask('acme', store);
    await world.directory.update(operator, tenantId('acme'), { state: 'suspended' });
    await exportTenant();
    await importAs('restored');
    expect(await world.ask('restored', store)).toEqual(before);
    expect(await world.directory.find(tenantId('restored'))).toMatchObject({
      name: 'Acme',
      tier: 'free',
      state: 'active',
      isolation: 'pooled',
    });
    const { files, vectorStores, responses } = world.cabinets('restored');
    expect((await files.list({ limit: 10, order: 'asc' })).items).toHaveLength(texts.length);
    expect((await responses.get('resp_acme'))?.response).toEqual({ text: texts[0] });
    const [file] = (await files.list({ limit: 1, order: 'asc' })).items;
    expect(await vectorStores.fileContent(store, file?.id ?? '')).toEqual([texts[0]]);
    // It is a tenant like any other, and the bill of the first stays with the first.
    await files.delete(file?.id ?? '');
    expect((await world.cabinets('acme').files.list({ limit: 10, order: 'asc' })).items).toHaveLength(texts.length);
    const { source } = { source: await shelf.open('acme.tar', undefined) };
    expect(source.manifest.rows).toMatchObject({ file: 3, chunk: 3, embedding_384: 3, response: 1, usage_event: 1 });
  });

  it('does not come in under an id that is or was in use', async () => {
    await expect(importAs('acme')).rejects.toMatchObject({ code: 'already_exists' });
    expect(await world.ask('acme', store)).toHaveLength(3);
  });
});

describe('an import that fails', () => {
  it('leaves nothing, not even the id', async () => {
    let members = 0;
    const failing = importerWith(() => {
      if (++members === 5) throw new Error('the disk is full');
    });
    await expect(importAs('half', failing)).rejects.toThrow('the disk is full');
    expect(await rowsOf('half')).toBe(0);
    await importAs('half');
    expect(await world.ask('half', store)).toEqual(await world.ask('acme', store));
  });

  it('is removed by the next process when its own died', async () => {
    const { promise: reached, resolve } = Promise.withResolvers<void>();
    const { promise: released, resolve: release } = Promise.withResolvers<void>();
    let members = 0;
    const hanging = importerWith(async () => {
      if (++members !== 5) return;
      resolve();
      await released;
    });
    const importing = importAs('orphan', hanging);
    importing.catch(() => {});
    await reached;
    expect(await rowsOf('orphan')).toBeGreaterThan(0);
    await importerWith().recover(operator, (id) => principalOf(id));
    expect(await rowsOf('orphan')).toBe(0);
    expect(await world.directory.find(tenantId('orphan'))).toBeUndefined();
    release();
    await expect(importing).rejects.toMatchObject({ code: 'not_ready' });
    expect(await rowsOf('orphan')).toBe(0);
    expect(await rowsOf('restored')).toBeGreaterThan(0);
  });
});

describe('an archive that was tampered with is refused by name', () => {
  const read = () => readFileSync(join(world.silo.dataDir, 'exports', 'acme.tar'));
  /** Start of the header of the first member whose name has this in it. */
  const memberAt = (archive: Buffer, name: string) => archive.indexOf(`tables/${name}/`) - (archive.indexOf(`tables/${name}/`) % 512);
  const sizeAt = (archive: Buffer, at: number) => Number.parseInt(archive.subarray(at + 124, at + 135).toString('latin1'), 8);
  const endOf = (archive: Buffer, at: number) => at + 512 + Math.ceil(sizeAt(archive, at) / 512) * 512;

  const faults: readonly (readonly [string, (archive: Buffer) => Buffer, string])[] = [
    [
      'a byte of a row is another',
      (archive) => {
        const at = memberAt(archive, 'response') + 600;
        archive[at] = (archive[at] ?? 0) ^ 1;
        return archive;
      },
      'tables/response/000001.jsonl was changed',
    ],
    ['it was cut off inside a member', (archive) => archive.subarray(0, memberAt(archive, 'response') + 700), 'cut off'],
    ['it was cut off between two members', (archive) => archive.subarray(0, memberAt(archive, 'response')), 'cut off'],
    [
      'a member was left out',
      (archive) => {
        const at = memberAt(archive, 'response');
        return Buffer.concat([archive.subarray(0, at), archive.subarray(endOf(archive, at))]);
      },
      'does not belong at its place',
    ],
    [
      'a member came twice',
      (archive) => {
        const at = memberAt(archive, 'response');
        return Buffer.concat([archive.subarray(0, at), archive.subarray(at, endOf(archive, at)), archive.subarray(at)]);
      },
      'does not belong at its place',
    ],
    ['something was added behind it', (archive) => Buffer.concat([archive, Buffer.alloc(512, 1)]), 'after its end'],
    [
      'its manifest was changed',
      (archive) => {
        const at = archive.indexOf('"tier":"free"');
        archive.write('"tier":"huge"', at);
        return archive;
      },
      'changed after it was signed',
    ],
    ['it is something else', () => Buffer.from('PK not a tar file'.padEnd(2_048)), 'no archive of a tenant'],
    ['it is empty', () => Buffer.alloc(0), 'cut off'],
  ];

  it.each(faults)('%s', async (_, change, message) => {
    writeFileSync(join(world.silo.dataDir, 'exports', 'changed.tar'), change(Buffer.from(read())));
    await expect(shelf.open('changed.tar', undefined)).rejects.toMatchObject({
      code: 'invalid_archive',
      message: expect.stringContaining(message),
    });
  });

  it('signed by somebody else, unless that key is trusted', async () => {
    const other = new DocumentSigner(Buffer.alloc(32, 6));
    await expect(shelf.open('acme.tar', other.publicKey)).rejects.toMatchObject({
      message: expect.stringContaining('signed by another key'),
    });
    await expect(shelf.open('acme.tar', 'no key at all')).rejects.toMatchObject({ code: 'invalid_value' });
    await shelf.open('acme.tar', signer.publicKey);
  });

  it('larger than its bounds, at n + 1', async () => {
    const size = read().length;
    const bounded = (changes: Partial<typeof bounds>) =>
      new DirectoryArchiveShelf({ dataDir: world.silo.dataDir, signer, bounds: { ...bounds, ...changes } }).open('acme.tar', undefined);
    const { manifest } = await bounded({ archiveBytesMax: size });
    await expect(bounded({ archiveBytesMax: size - 1 })).rejects.toMatchObject({ code: 'invalid_archive' });
    await bounded({ membersMax: manifest.members.length + 1 });
    await expect(bounded({ membersMax: manifest.members.length })).rejects.toMatchObject({ code: 'invalid_archive' });
  });

  it.each(['../secret', 'a/b.tar', '/etc/passwd', '.tar', 'x.zip', 'A.tar'])('not in its place: %s', async (file) => {
    await expect(shelf.open(file, undefined)).rejects.toMatchObject({ code: 'invalid_value' });
  });
});
