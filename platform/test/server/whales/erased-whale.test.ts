/** A tenant with a store in a shard of its own is erased: the shard goes with every page, and the neighbour in the pooled one finds the same. */
import { expect, it } from 'vitest';
import type { Database } from '../../../src/adapters/postgres/database.ts';
import { PostgresPlacementKeeper } from '../../../src/adapters/postgres/placement-keeper.ts';
import { RecallWatch } from '../../../src/adapters/postgres/recall-watch.ts';
import { systemClock } from '../../../src/primitives/clock.ts';
import { seededRandom } from '../../../src/primitives/random.ts';
import { signatureFault } from '../../../src/primitives/signed-document.ts';
import { silentLogger } from '../../../src/telemetry/logger.ts';
import { type ErasureWorld, openErasureWorld, operator, signer } from '../../lifecycle/erasure-world.ts';
import { principalOf, tenantId } from '../../support/embedded-database.ts';
import { smallBounds, sweep } from './whale-world.ts';

it('is gone with its shard, and the receipt counts what was there', { timeout: 180_000 }, async () => {
  const world: ErasureWorld = await openErasureWorld({
    // Planner statistics of the partitioned tables quote what was planted in the shard that goes.
    onStep: async (step) => {
      if (step === 'found') await world.silo.shared.withClient((client) => client.query('ANALYZE'));
    },
  });
  await using _ = world;
  const { shared } = world.silo;
  const texts = Array.from({ length: 6 }, (_, index) => `Part ${index} of the lease: the pump loses pressure in winter.`);
  // Some neighbour in each pooled shard: none is empty after it.
  const neighbours = ['initech', 'umbrella', 'hooli', 'stark', 'wayne', 'wonka', 'tyrell', 'cyberdyne'];
  for (const tenant of ['acme', 'globex', ...neighbours]) await world.silo.addTenant(tenant);
  for (const tenant of neighbours) await world.fill(tenant, texts);
  const own = await world.fill('acme', texts);
  const neighbour = await world.fill('globex', texts);
  const keeper = new PostgresPlacementKeeper({
    shared,
    owner: shared,
    bounds: smallBounds,
    watch: new RecallWatch(smallBounds.recallMin, silentLogger),
    clock: systemClock,
    random: seededRandom(7),
    logger: silentLogger,
  });
  await keeper.wish(operator, tenantId('acme'), 'dedicated');
  await sweep(keeper);
  expect((await keeper.find(operator, tenantId('acme'))).stores).toMatchObject([{ storeId: own, placement: 'dedicated', isMoving: false }]);
  const before = await world.ask('globex', neighbour);
  expect(await dedicatedRelations(shared)).not.toEqual([]);
  const { body, ...rest } = await world.eraser.erase(operator, principalOf('acme'), { signal: new AbortController().signal });
  expect(signatureFault(JSON.parse(JSON.stringify({ body, ...rest })), 'bulkhead.deletion-receipt', signer.publicKey)).toBeUndefined();
  for (const table of ['chunk', 'posting', 'embedding_384']) {
    const surface = body.surfaces.find(({ name }) => name === `app.${table}`);
    expect(surface, table).toMatchObject({ after: 0 });
    expect(surface?.before, table).toBeGreaterThanOrEqual(texts.length);
  }
  for (const { foundBefore, foundAfter } of body.canaries) expect([foundBefore > 0, foundAfter]).toEqual([true, 0]);
  expect(await dedicatedRelations(shared)).toEqual([]);
  expect(await world.ask('globex', neighbour)).toEqual(before);
});

async function dedicatedRelations(database: Database): Promise<readonly string[]> {
  const { rows } = await database.withClient((client) =>
    client.query<{ readonly relname: string }>(
      `SELECT relname FROM pg_class WHERE relkind IN ('r', 'i') AND relname ~ '_s1[0-9]{3}' ORDER BY 1`,
    ),
  );
  return rows.map(({ relname }) => relname);
}
