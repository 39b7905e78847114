/** `kill -9` at every step of sealing a tenant's content anew: whatever was half done, everything opens, and the next process goes on. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { PostgresDataKeyCustody } from '../../src/adapters/postgres/data-key-custody.ts';
import { type ResealStep, resealSteps } from '../../src/adapters/postgres/resealer.ts';
import { openResponseCabinet } from '../../src/adapters/postgres/responses.ts';
import { newDataKey, wrapDataKey } from '../../src/encryption/data-key.ts';
import { systemClock } from '../../src/primitives/clock.ts';
import { systemIds } from '../../src/primitives/ids.ts';
import { Library } from '../retrieval/library.ts';
import { principalOf, tenantId } from '../support/embedded-database.ts';
import { testKeyRing } from '../support/key-ring.ts';

const child = fileURLToPath(new URL('./reseal-child.ts', import.meta.url));
const dataDir = mkdtempSync(join(tmpdir(), 'bulkhead-reseal-'));
const responses = 300;
const acme = principalOf('acme');

beforeAll(async () => {
  await using library = await Library.open({ dataDir });
  const database = library.db.database.forTenant(acme);
  const cabinet = openResponseCabinet(database);
  for (let index = 0; index < responses; index++) {
    await cabinet.create({ id: `resp_${index}`, createdAtMs: 1, response: { index }, inputItems: [{ index }] });
  }
  using ring = testKeyRing();
  const master = ring.masters.current;
  const sealJob = library.envelopes.seal.bind(library.envelopes);
  const custody = new PostgresDataKeyCustody({ database, principal: acme, ids: systemIds, clock: systemClock, sealJob });
  const wrapped = await wrapDataKey(master, newDataKey(), { tenantId: tenantId('acme'), version: 2 });
  expect(await custody.advance({ version: 2, masterKeyId: master.id, wrapped, messages: 0 })).toBe(true);
});
afterAll(() => rmSync(dataDir, { recursive: true, force: true }));

/** The signal that ended the process. */
async function runUntil(step: ResealStep, times: number): Promise<unknown> {
  const running = spawn(process.execPath, [child, dataDir, step, String(times)], { stdio: ['ignore', 'ignore', 'inherit'] });
  const [, signal] = await once(running, 'exit');
  return signal;
}

it('loses nothing and ends what it began', { timeout: 180_000 }, async () => {
  for (const step of resealSteps) {
    // In the middle of the walk, where it has windows behind it and before it.
    const times = step === 'opened' || step === 'sealing' || step === 'sealed' ? 5 : 1;
    expect([step, await runUntil(step, times)]).toEqual([step, 'SIGKILL']);
  }
  await using library = await Library.open({ dataDir, resealing: { writersMs: 0, readersMs: 0, stepMs: 50, pauseMs: 0 } });
  await library.queue.releaseAll();
  await library.worker.drain();
  const heads = await library.truth<{ head: Buffer; count: string }>(
    'SELECT substring(v FROM 1 FOR 5) AS head, count(*) FROM (SELECT response AS v FROM app.response UNION ALL SELECT input_items FROM app.response) every GROUP BY 1',
  );
  expect(heads.map(({ head, count }) => [head.readUInt32BE(1), Number(count)])).toEqual([[2, responses * 2]]);
  expect(await library.truth('SELECT version FROM app.data_key')).toEqual([{ version: '2' }]);
  expect(await library.truth("SELECT 1 FROM control.job WHERE kind = 'reseal'")).toEqual([]);
  const cabinet = openResponseCabinet(library.db.database.forTenant(acme));
  for (let index = 0; index < responses; index++) {
    expect(await cabinet.get(`resp_${index}`)).toMatchObject({ response: { index }, inputItems: [{ index }] });
  }
  expect(library.alarms).toEqual([]);
});
