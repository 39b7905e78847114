/**
 * `npm run soak:isolation -- [--operations 1000000] [--seed 1] [--engine embedded|server] [--http-share 0.02]`: random searches, reads and changes of tenants
 * that hold near-duplicates of each other. Ends with code 1 when a foreign row was shown, a search came back short or anything failed.
 */
import { parseArgs } from 'node:util';
import { soakHttp } from '../../test/soak/http-isolation.ts';
import { type SoakReport, soakIsolation } from '../../test/soak/isolation-soak.ts';
import startServer from '../../test/support/server-setup.ts';
import { residentMiB } from '../support/machine.ts';

const { values } = parseArgs({
  options: {
    operations: { type: 'string', default: '1000000' },
    seed: { type: 'string', default: '1' },
    engine: { type: 'string', default: 'embedded' },
    'http-share': { type: 'string', default: '0.02' },
  },
});
const [operations, seed] = [Number(values.operations), Number(values.seed)];
const overHttp = Math.round(operations * Number(values['http-share']));
const interrupt = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => interrupt.abort());

let stopServer: (() => Promise<void>) | undefined;
if (values.engine === 'server') {
  process.env['BULKHEAD_TEST_ENGINE'] = 'server';
  stopServer = await startServer();
  if (stopServer === undefined) throw new Error(process.env['TEST_SERVER_PROBLEM']);
}
try {
  await main();
} finally {
  await stopServer?.();
}
process.exit();

async function main(): Promise<void> {
  const inside = await soakIsolation({ operations: operations - overHttp, seed, onProgress, signal: interrupt.signal });
  say(`through the capabilities on the ${values.engine} engine`, inside);
  process.stdout.write(`${JSON.stringify(inside.byKind)}, ${inside.fromMemory} searches from memory\n`);
  const outside = await soakHttp({ operations: interrupt.signal.aborted ? 0 : overHttp, seed });
  say('over HTTP on the embedded engine', { ...outside, short: 0 });
  for (const example of [...inside.examples, ...outside.examples]) process.stdout.write(`  ${example}\n`);
  const found = inside.foreign + inside.short + inside.wrong + outside.foreign + outside.wrong;
  const done = inside.operations + outside.operations;
  process.stdout.write(
    `${done.toLocaleString('en-US')} operations, seed ${seed}: ${found === 0 ? 'nothing found' : `${found} findings`}\n`,
  );
  if (found > 0 || done < operations) process.exitCode = 1;
}

function onProgress(report: SoakReport): void {
  say(`so far (${Math.round(residentMiB(process.pid))} MiB resident)`, report);
}

function say(where: string, report: Omit<SoakReport, 'byKind' | 'examples' | 'fromMemory'>): void {
  const { operations: count, foreign, short, wrong, seconds } = report;
  const rate = Math.round(count / seconds);
  process.stdout.write(
    `${count.toLocaleString('en-US')} operations ${where}: ${foreign} foreign rows, ${short} short, ${wrong} wrong; ${rate} a second, seed ${seed}\n`,
  );
}
