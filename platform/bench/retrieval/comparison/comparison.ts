/**
 * Vector search over many tenants, side by side on the same data: this product (embedded, on a real server) against plain pgvector and LanceDB.
 * `npm run bench:retrieval -- [--full] [--vectors=500000] [--tenants=1000] [--dimensions=384,768] [--systems=a,b] [--seed=1] [--questions=400]
 *   [--words=32] [--seconds=10] [--concurrency=8] [--write-docs]`
 */
import { parseArgs } from 'node:util';
import { choosePinning, machineFacts } from '../../support/machine.ts';
import { runPart } from '../../support/part.ts';
import { machineLine, writeDocsSection, writeResults } from '../../support/report.ts';
import { httpDimensions } from './bulkhead-http.ts';
import { gateTable, latencyTable, overviewTable, sizeTable } from './comparison-report.ts';
import { installLance } from './lancedb.ts';
import { Servers } from './servers.ts';
import { type SystemName, type SystemOptions, type SystemResult, systemNames } from './system.ts';

const partWithinMs = 3 * 3_600_000;

const options = readOptions();
const interrupt = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => interrupt.abort(new Error(`stopped by ${signal}`)));
await main();

/** Not strict: `npm run bench:retrieval` passes the options of the other half, how well search ranks, too. */
function readOptions() {
  const { values } = parseArgs({ strict: false });
  const isFull = values['full'] === true;
  const text = (name: string, otherwise: string) => (typeof values[name] === 'string' ? values[name] : otherwise);
  const number = (name: string, quick: number, full = quick) => Number(text(name, String(isFull ? full : quick)));
  const wanted = text('systems', systemNames.join(',')).split(',');
  const systems = systemNames.filter((name) => wanted.includes(name));
  if (systems.length === 0) throw new Error(`--systems=a,b takes some of ${systemNames.join(', ')}`);
  return {
    systems,
    dimensions: text('dimensions', '384,768').split(',').map(Number),
    writeDocs: values['write-docs'] === true,
    shape: {
      tenants: number('tenants', 1_000),
      vectors: number('vectors', 50_000, 500_000),
      seed: number('seed', 1),
      wordsPerChunk: number('words', 32),
      questionsPerClass: number('questions', 100, 400),
      secondsPerRound: number('seconds', 3, 10),
      concurrency: number('concurrency', 8),
    },
  };
}

async function main(): Promise<void> {
  const results: SystemResult[] = [];
  for (const dimensions of options.dimensions) {
    await using servers = new Servers();
    for (const system of options.systems) {
      if (system === 'bulkhead-http' && dimensions !== httpDimensions) continue;
      const measured = await measure({ ...options.shape, system, dimensions }, servers).catch((error: unknown) => leaveOut(system, error));
      if (measured !== undefined) results.push(measured);
    }
  }
  publish(results);
}

/** Each system has a process of its own. */
async function measure(chosen: Omit<SystemOptions, 'serverUrl'>, servers: Servers): Promise<SystemResult> {
  const { system, dimensions } = chosen;
  process.stderr.write(`  ${system}, ${dimensions} dimensions ...\n`);
  const serverUrl = await servers.urlFor(system);
  if (system === 'lancedb') await installLance(interrupt.signal);
  const engine = system === 'bulkhead-server' ? { BULKHEAD_TEST_ENGINE: 'server', TEST_SERVER_URL: serverUrl } : {};
  return await runPart<SystemResult>({
    name: system,
    script: new URL('./run-system.ts', import.meta.url).pathname,
    args: [JSON.stringify({ ...chosen, serverUrl } satisfies SystemOptions)],
    nodeOptions: ['--expose-gc'],
    env: { ...process.env, ...engine },
    withinMs: partWithinMs,
    signal: interrupt.signal,
  });
}

/** A system that cannot be had here is left out; one of ours that fails is a failure. */
function leaveOut(system: SystemName, error: unknown): undefined {
  const reason = error instanceof Error ? error.message : String(error);
  process.stderr.write(`  ${system} is left out: ${reason}\n`);
  if (interrupt.signal.aborted || system.startsWith('bulkhead')) process.exitCode = 1;
}

function publish(results: readonly SystemResult[]): void {
  const facts = machineFacts({ ...choosePinning(), text: 'nothing pinned; the servers run without fsync' });
  const { tenants, vectors, seed, wordsPerChunk } = options.shape;
  const about = `${vectors.toLocaleString('en-US')} vectors of ${tenants.toLocaleString('en-US')} tenants (Zipf), ${wordsPerChunk} words a chunk, seed ${seed}, k = 10.`;
  const upTo10k = 'Tenants up to 10,000 vectors, asked by Zipf’s law, warm, one search at a time:';
  const bySize = 'The same by size of the tenant, as many questions of each:';
  const tables = [overviewTable(results), upTo10k, latencyTable(results), bySize, sizeTable(results), gateTable(results)];
  const sections = [about, ...tables].join('\n\n');
  process.stdout.write(
    `\n${sections}\n\n${machineLine(facts)}\nraw figures: ${writeResults('comparison', facts, { shape: options.shape, results })}\n`,
  );
  if (options.writeDocs) writeDocsSection('comparison', `## Vector search over many tenants\n\n${machineLine(facts)}\n\n${sections}`);
}
