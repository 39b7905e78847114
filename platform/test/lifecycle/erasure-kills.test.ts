/** `kill -9` at every step of an erasure, one after the other on the same directory, and at random moments: each time it is carried on, and it ends with a receipt. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import type { EraseStep } from '../../src/adapters/postgres/tenant-eraser.ts';
import { seededRandom } from '../../src/primitives/random.ts';
import { signatureFault } from '../../src/primitives/signed-document.ts';
import { principalOf, tenantId } from '../support/embedded-database.ts';
import { openErasureWorld, operator, signer } from './erasure-world.ts';

const child = fileURLToPath(new URL('./erasure-child.ts', import.meta.url));
const { signal } = new AbortController();
const steps: readonly EraseStep[] = [
  'begun',
  'refused',
  'planted',
  'found',
  'closed',
  'counted',
  'deleting',
  'deleted',
  'rewriting',
  'purged',
  'verified',
  'done',
];
/** Those that a database of the tenant's own takes another way. */
const siloSteps: readonly EraseStep[] = ['planted', 'closed', 'deleting', 'purged'];
const texts = ['The pump loses pressure in winter.', 'The lease is signed by the tenant.', 'A storm damaged the roof.'];

async function run(dataDir: string, stopAt: string): Promise<NodeJS.Signals | number | null> {
  const running = spawn(process.execPath, [child, dataDir, stopAt], { stdio: ['ignore', 'ignore', 'inherit'] });
  const [code, by] = (await once(running, 'exit')) as [number | null, NodeJS.Signals | null];
  return by ?? code;
}

/** Returns what the neighbour finds. */
async function prepare(dataDir: string, isolation: 'pooled' | 'siloed') {
  await using world = await openErasureWorld({ dataDir });
  for (const tenant of ['acme', 'globex']) await world.silo.addTenant(tenant);
  await world.fill('acme', texts);
  const store = await world.fill('globex', texts);
  if (isolation === 'siloed') await world.silo.mover.move(operator, principalOf('acme'), { destination: 'siloed', signal });
  return { store, found: await world.ask('globex', store) };
}

async function expectErased(dataDir: string, neighbour: { readonly store: string; readonly found: readonly string[] }): Promise<void> {
  await using world = await openErasureWorld({ dataDir });
  const receipt = await world.eraser.erase(operator, principalOf('acme'), { signal });
  expect(signatureFault(receipt, 'bulkhead.deletion-receipt', signer.publicKey)).toBeUndefined();
  expect(receipt.body.surfaces.filter(({ after, kept }) => after !== 0 && kept === undefined)).toEqual([]);
  expect(receipt.body.canaries.every(({ foundBefore, foundAfter }) => foundBefore > 0 && foundAfter === 0)).toBe(true);
  expect(await world.directory.find(tenantId('acme'))).toBeUndefined();
  expect(await world.eraser.unfinished(operator)).toEqual([]);
  expect(await world.ask('globex', neighbour.store)).toEqual(neighbour.found);
}

describe('a process that is killed while it erases a tenant', () => {
  it.each(['pooled', 'siloed'] as const)(
    'is carried on from every step, %s',
    async (isolation) => {
      const dataDir = mkdtempSync(join(tmpdir(), 'bulkhead-erasure-kills-'));
      try {
        const neighbour = await prepare(dataDir, isolation);
        for (const step of isolation === 'pooled' ? steps : siloSteps) expect(await run(dataDir, step), step).toBe('SIGKILL');
        await expectErased(dataDir, neighbour);
      } finally {
        rmSync(dataDir, { recursive: true, force: true });
      }
    },
    300_000,
  );

  it('is carried on from any moment', async () => {
    const dataDir = mkdtempSync(join(tmpdir(), 'bulkhead-erasure-kills-'));
    const random = seededRandom(11);
    try {
      const neighbour = await prepare(dataDir, 'pooled');
      for (let kills = 0; kills < 4; kills++) if ((await run(dataDir, `after:${Math.floor(random.next() * 2_000)}`)) === 0) break;
      await expectErased(dataDir, neighbour);
    } finally {
      rmSync(dataDir, { recursive: true, force: true });
    }
  }, 300_000);
});
