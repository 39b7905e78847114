/** A tenant's content is sealed anew while its large store moves to a shard of its own and back: every value ends under the newest key, none is lost. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { PostgresDataKeyCustody } from '../../../src/adapters/postgres/data-key-custody.ts';
import { PostgresMasterKeyRegister } from '../../../src/adapters/postgres/master-keys.ts';
import { PostgresResealer, type ResealStep } from '../../../src/adapters/postgres/resealer.ts';
import { PostgresTenantDirectory } from '../../../src/adapters/postgres/tenant-directory.ts';
import { localMasterKey } from '../../../src/encryption/local-master-key.ts';
import { masterKeys } from '../../../src/encryption/master-key.ts';
import { KeyRotation } from '../../../src/jobs/key-rotation.ts';
import { systemClock } from '../../../src/primitives/clock.ts';
import { systemIds } from '../../../src/primitives/ids.ts';
import { silentLogger } from '../../../src/telemetry/logger.ts';
import { fingerprint, Library } from '../../retrieval/library.ts';
import { principalOf } from '../../support/embedded-database.ts';
import { clusteredEmbedder, clusteredQuestion, keeperOf, longStore, longText, operator, shardsOf, sweep } from './whale-world.ts';

const whale = principalOf('whale');
let library: Library;
let storeId: string;

beforeAll(async () => {
  library = await Library.open({ embedder: clusteredEmbedder });
  storeId = await longStore(library, 'whale', { files: 40, chunksEach: 4 });
}, 180_000);
afterAll(() => library[Symbol.asyncDispose]());

const home = () => library.db.database.forTenant(whale);

async function answers(): Promise<readonly string[]> {
  const found: string[] = [];
  for (let index = 0; index < 8; index++) {
    found.push(fingerprint(await library.shelves('whale').vectorStores.search(storeId, clusteredQuestion(longText(index, 1)))));
  }
  return found;
}

async function rotate(): Promise<void> {
  const { database } = library.db;
  const sealJob = library.envelopes.seal.bind(library.envelopes);
  const rotation = new KeyRotation({
    masters: masterKeys(localMasterKey(Buffer.alloc(32, 7))),
    register: new PostgresMasterKeyRegister(database),
    registry: new PostgresTenantDirectory(database, systemClock),
    custodyOf: (principal) =>
      new PostgresDataKeyCustody({ database: database.forTenant(principal), principal, ids: systemIds, clock: systemClock, sealJob }),
    logger: silentLogger,
  });
  await rotation.rotate(operator, whale.tenantId);
  await home().cipher.renew();
}

/** Chunks of the tenant by the version that they are sealed under. */
async function versions(): Promise<Readonly<Record<string, number>>> {
  const rows = await library.truth<{ version: number; count: string }>(
    `SELECT ('x' || encode(substring(content FROM 2 FOR 4), 'hex'))::bit(32)::int AS version, count(*) FROM app.chunk WHERE tenant_id = 'whale' GROUP BY 1`,
  );
  return Object.fromEntries(rows.map(({ version, count }) => [String(version), Number(count)]));
}

const places = async () => Object.keys((await shardsOf(library, 'whale'))['chunk'] ?? {}).length;

it('leaves nothing under an older key, whichever of the two touches a row first', async () => {
  const before = await answers();
  const count = Object.values(await versions()).reduce((sum, each) => sum + each, 0);
  for (const [round, dedicatedChunksMin] of [100, 1_000_000].entries()) {
    await rotate();
    const steps: ResealStep[] = [];
    const bounds = { writersMs: 0, readersMs: 0, stepMs: 1, pauseMs: 0 };
    const resealer = new PostgresResealer(home(), { principal: whale, logger: silentLogger, bounds, onStep: (step) => steps.push(step) });
    let isSealing = true;
    const sealing = (async () => {
      while ((await resealer.step(new AbortController().signal)) !== undefined) {}
      isSealing = false;
    })();
    let stepsMeanwhile = 0;
    const keeper = keeperOf(library, {
      bounds: { dedicatedChunksMin },
      onStep: () => {
        if (isSealing) stepsMeanwhile++;
      },
    });
    await sweep(keeper);
    await sealing;
    // Files that were locked are left for the next sweep.
    for (let count = 0; count < 10 && (await places()) > 1; count++) await sweep(keeper);
    expect(stepsMeanwhile, 'the store moved while it was sealed anew').toBeGreaterThan(1);
    expect(steps.at(-1)).toBe('destroyed');
    expect(await versions()).toEqual({ [round + 2]: count });
    expect(await places()).toBe(1);
    expect(await answers()).toEqual(before);
  }
  expect(library.alarms).toEqual([]);
});
