/** One system in a process of its own: prints what was measured as its last line. Started by comparison.ts. */
import { openBulkhead } from './bulkhead.ts';
import { openBulkheadHttp } from './bulkhead-http.ts';
import { openLance } from './lancedb.ts';
import { measureSystem } from './measure.ts';
import { openPgvector } from './pgvector.ts';
import type { SearchSystem, SystemOptions } from './system.ts';

const options = JSON.parse(process.argv[2] ?? '') as SystemOptions;
// The benchmark is gone: so is this.
process.stdin.on('end', () => process.exit(1)).resume();
{
  await using system = await open(options);
  process.stdout.write(`${JSON.stringify(await measureSystem(system, options))}\n`);
}
process.exit(0);

async function open({ system, dimensions, serverUrl = '', concurrency }: SystemOptions): Promise<SearchSystem> {
  switch (system) {
    case 'bulkhead-embedded':
      return openBulkhead({ engine: 'embedded', dimensions });
    case 'bulkhead-server':
      return openBulkhead({ engine: 'server', dimensions });
    case 'bulkhead-http':
      return openBulkheadHttp();
    case 'pgvector-exact':
      return openPgvector(serverUrl, 'exact', concurrency);
    case 'pgvector-hnsw':
      return openPgvector(serverUrl, 'hnsw', concurrency);
    case 'pgvector-hnsw-iterative':
      return openPgvector(serverUrl, 'hnsw-iterative', concurrency);
    case 'lancedb':
      return openLance();
    default:
      return system satisfies never;
  }
}
