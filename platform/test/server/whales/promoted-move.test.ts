/** A tenant whose store has a shard of its own moves into a database of its own and back: a shard is a place in one database, and no part of what it has. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { PostgresFileCabinet } from '../../../src/adapters/postgres/documents-files.ts';
import { PostgresIngestionShelf } from '../../../src/adapters/postgres/documents-ingestion.ts';
import { PostgresVectorStoreCabinet } from '../../../src/adapters/postgres/documents-stores.ts';
import { PostgresPlacementKeeper } from '../../../src/adapters/postgres/placement-keeper.ts';
import { RecallWatch } from '../../../src/adapters/postgres/recall-watch.ts';
import { JobEnvelopes } from '../../../src/jobs/job-envelope.ts';
import { systemClock } from '../../../src/primitives/clock.ts';
import { systemIds } from '../../../src/primitives/ids.ts';
import { seededRandom } from '../../../src/primitives/random.ts';
import { silentLogger } from '../../../src/telemetry/logger.ts';
import { chunking, dimensions, fingerprint } from '../../retrieval/library.ts';
import { openSiloWorld, type SiloWorld } from '../../silos/silo-world.ts';
import { principalOf, tenantId } from '../../support/embedded-database.ts';
import { clusteredQuestion, clusteredVector, longText, operator, smallBounds, sweep } from './whale-world.ts';

const acme = principalOf('acme');
const { signal } = new AbortController();
let world: SiloWorld;
let keeper: PostgresPlacementKeeper;
let storeId: string;

function cabinets() {
  const database = world.homes.forTenant(acme);
  const quota = { filesPerTenantMax: 1_000, fileBytesPerTenantMax: 1_024 ** 3, vectorStoresPerTenantMax: 100 };
  const envelopes = new JobEnvelopes(Buffer.alloc(32, 7));
  const common = { database, ids: systemIds, clock: systemClock, quota, principal: acme, sealJob: envelopes.seal.bind(envelopes) };
  const embedding = { model: 'local-hash-384', dimensions };
  return {
    files: new PostgresFileCabinet(common),
    vectorStores: new PostgresVectorStoreCabinet({ ...common, onEnqueued: () => {}, embedding, language: 'english' }),
    shelf: new PostgresIngestionShelf(database),
  };
}

async function answers(): Promise<readonly string[]> {
  const found: string[] = [];
  for (let index = 0; index < 5; index++)
    found.push(fingerprint(await cabinets().vectorStores.search(storeId, clusteredQuestion(longText(index, 1)))));
  return found;
}

async function isDedicated(): Promise<boolean> {
  await sweep(keeper);
  const { stores } = await keeper.find(operator, tenantId('acme'));
  return stores.some(({ placement, isMoving }) => placement === 'dedicated' && !isMoving);
}

beforeAll(async () => {
  world = await openSiloWorld();
  const parts = { shared: world.shared, owner: world.shared, clock: systemClock, random: seededRandom(1), logger: silentLogger };
  keeper = new PostgresPlacementKeeper({
    ...parts,
    bounds: { ...smallBounds, dedicatedChunksMin: 40 },
    watch: new RecallWatch(0.98, silentLogger),
  });
  await world.addTenant('acme');
  const { files, vectorStores, shelf } = cabinets();
  storeId = (await vectorStores.create({ name: 'test', metadata: {} })).id;
  for (let number = 0; number < 6; number++) {
    const file = await files.create({ filename: 'note.txt', purpose: 'assistants', body: Buffer.from('note') });
    await vectorStores.attachFile(storeId, { fileId: file.id, attributes: { number }, chunking });
    const draft = await shelf.begin({ storeId, fileId: file.id });
    const texts = Array.from({ length: 10 }, (_, ordinal) => longText(number * 100 + ordinal, 1));
    await draft?.append(texts.map((text, ordinal) => ({ ordinal, text, embedding: clusteredVector(text) })));
    expect(await draft?.publish()).toBe(true);
  }
});
afterAll(() => world[Symbol.asyncDispose]());

it('finds the same there and back, and is placed anew by size when it is back', async () => {
  expect(await isDedicated()).toBe(true);
  const before = await answers();
  await world.mover.move(operator, acme, { destination: 'siloed', signal });
  expect(await answers()).toEqual(before);
  // What it left here is nobody's place any more.
  expect(await isDedicated()).toBe(false);
  const { rows } = await world.shared.withClient((client) => client.query(`SELECT relname FROM pg_class WHERE relname ~ '_s1[0-9]{3}'`));
  expect(rows).toEqual([]);
  await world.mover.move(operator, acme, { destination: 'pooled', signal });
  expect(await answers()).toEqual(before);
  expect(await isDedicated()).toBe(true);
  expect(await answers()).toEqual(before);
}, 120_000);
