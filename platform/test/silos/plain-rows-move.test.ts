/** A tenant with content from before there was encryption moves: it is read wherever the tenant is, sealed there, and not believed afterwards. */
import { sql } from 'kysely';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { PostgresResealer } from '../../src/adapters/postgres/resealer.ts';
import { openResponseCabinet } from '../../src/adapters/postgres/responses.ts';
import { silentLogger } from '../../src/telemetry/logger.ts';
import { principalOf } from '../support/embedded-database.ts';
import { openSiloWorld, operator, type SiloWorld } from './silo-world.ts';

const acme = principalOf('acme');
const { signal } = new AbortController();
const plain = (json: string) => Buffer.concat([Buffer.of(0), Buffer.from(json)]);
let world: SiloWorld;

beforeAll(async () => {
  world = await openSiloWorld();
  await world.addTenant('acme');
  await world.shared.withClient(async (client) => {
    await client.query("INSERT INTO app.plain_rows (tenant_id) VALUES ('acme')");
    await client.query(
      `INSERT INTO app.response (tenant_id, id, created_at_ms, response, input_items) VALUES ('acme', 'resp_old', 1, $1, $2)`,
      [plain('{"said":"long ago"}'), plain('[]')],
    );
  });
});
afterAll(() => world[Symbol.asyncDispose]());

const home = () => world.homes.forTenant(acme);
const said = async () => (await openResponseCabinet(home()).get('resp_old'))?.response;

/** 0 at the front of a value that is plain. */
async function firstByte(): Promise<number | undefined> {
  const { rows } = await home().read((db) => sql<{ first: number }>`SELECT get_byte(response, 0) AS first FROM app.response`.execute(db));
  return rows[0]?.first;
}

async function sealAnew(): Promise<void> {
  const bounds = { writersMs: 0, readersMs: 0, stepMs: 20, pauseMs: 0 };
  // As whoever asks for it does: there must be a key to seal under.
  await home().cipher.sealer(1);
  const resealer = new PostgresResealer(home(), { principal: acme, logger: silentLogger, bounds });
  while ((await resealer.step(signal)) !== undefined) {}
}

it('reads it in the other database, seals it there, and comes back with it sealed', async () => {
  expect(await said()).toEqual({ said: 'long ago' });
  await world.mover.move(operator, acme, { destination: 'siloed', signal });
  expect(await said()).toEqual({ said: 'long ago' });
  expect(await firstByte()).toBe(0);
  await sealAnew();
  expect(await said()).toEqual({ said: 'long ago' });
  expect(await firstByte()).not.toBe(0);
  await world.mover.move(operator, acme, { destination: 'pooled', signal });
  expect(await said()).toEqual({ said: 'long ago' });
  expect(await firstByte()).not.toBe(0);
  await home().write((db) => sql`UPDATE app.response SET response = ${plain('{"said":"forged"}')}`.execute(db));
  await expect(said()).rejects.toMatchObject({ code: 'sealed_data_unreadable' });
});
