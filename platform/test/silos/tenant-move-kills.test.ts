/** `kill -9` at every step of a move, in both directions: the next process takes it back or carries it on, and the tenant has everything, in one place. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openResponseCabinet } from '../../src/adapters/postgres/responses.ts';
import type { MoveStep } from '../../src/adapters/postgres/tenant-mover.ts';
import type { TenantIsolation } from '../../src/tenancy/tenant.ts';
import { principalOf } from '../support/embedded-database.ts';
import { openSiloWorld, operator, type SiloWorld } from './silo-world.ts';

const child = fileURLToPath(new URL('./move-child.ts', import.meta.url));
const dataDir = mkdtempSync(join(tmpdir(), 'bulkhead-move-kills-'));
const { signal } = new AbortController();
const written = Array.from({ length: 30 }, (_, index) => `resp_${index}`);

/** The steps that each direction passes, and where the tenant is after a crash there. */
const toSilo: readonly (readonly [MoveStep, TenantIsolation])[] = [
  ['begun', 'pooled'],
  ['created', 'pooled'],
  ['copied', 'pooled'],
  ['closed', 'pooled'],
  ['equal', 'pooled'],
  ['switched', 'siloed'],
  ['removed', 'siloed'],
];
const toShared: readonly (readonly [MoveStep, TenantIsolation])[] = [
  ['begun', 'siloed'],
  ['copied', 'siloed'],
  ['closed', 'siloed'],
  ['equal', 'siloed'],
  ['left', 'siloed'],
  ['switched', 'pooled'],
  ['removed', 'pooled'],
];

async function killedAt(step: MoveStep, destination: TenantIsolation): Promise<void> {
  const running = spawn(process.execPath, [child, dataDir, destination, step], { stdio: 'ignore' });
  const [, by] = (await once(running, 'exit')) as [number | null, NodeJS.Signals | null];
  expect(by).toBe('SIGKILL');
}

/** A new process over what was left; `recover` runs first, as at a start. */
async function afterwards<T>(look: (world: SiloWorld) => Promise<T>): Promise<T> {
  await using world = await openSiloWorld({ dataDir, recovers: true });
  return await look(world);
}

async function expectWhole(world: SiloWorld, home: TenantIsolation): Promise<void> {
  const responses = openResponseCabinet(world.homes.forTenant(principalOf('acme')));
  for (const id of written) expect((await responses.get(id))?.id, id).toBe(id);
  // Not only readable: nobody holds its writers.
  await responses.create({ id: 'resp_probe', createdAtMs: 1, response: {}, inputItems: [] });
  expect(await responses.delete('resp_probe')).toBe(true);
  const { rows } = await world.shared.withClient((client) =>
    client.query<{ readonly count: string }>("SELECT count(*) FROM app.response WHERE tenant_id = 'acme'"),
  );
  expect(Number(rows[0]?.count)).toBe(home === 'pooled' ? written.length : 0);
  expect(existsSync(join(dataDir, 'silos', 'acme'))).toBe(home === 'siloed');
  expect((await world.register.homes()).length).toBe(home === 'siloed' ? 1 : 0);
}

beforeAll(async () => {
  await using world = await openSiloWorld({ dataDir });
  await world.addTenant('acme');
  const responses = openResponseCabinet(world.homes.forTenant(principalOf('acme')));
  for (const id of written) await responses.create({ id, createdAtMs: 1, response: { id }, inputItems: [] });
});
afterAll(() => rmSync(dataDir, { recursive: true, force: true }));

describe('a process that is killed while a tenant moves', () => {
  it.each(toSilo)('into its own database, at the step "%s", leaves it %s and whole', async (step, home) => {
    await killedAt(step, 'siloed');
    await afterwards(async (world) => {
      await expectWhole(world, home);
      if (home === 'siloed') await world.mover.move(operator, principalOf('acme'), { destination: 'pooled', signal });
    });
  });

  it('moves it after all, when nobody kills it', async () => {
    await afterwards(async (world) => {
      await world.mover.move(operator, principalOf('acme'), { destination: 'siloed', signal });
      await expectWhole(world, 'siloed');
    });
  });

  it.each(toShared)('back into the shared database, at the step "%s", leaves it %s and whole', async (step, home) => {
    await killedAt(step, 'pooled');
    await afterwards(async (world) => {
      await expectWhole(world, home);
      if (home === 'pooled') await world.mover.move(operator, principalOf('acme'), { destination: 'siloed', signal });
    });
  });
});
