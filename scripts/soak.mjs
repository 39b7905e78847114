// `npm run soak:isolation -- --operations 1000000 --seed 1`: long random runs that look for what must never happen.
import { join } from 'node:path';
import { projectRoot, runAttached, setUp, toolEnvironment } from './set-up.mjs';

const soaks = { isolation: 'platform/bench/soak/isolation.ts', kills: 'platform/bench/soak/kills.ts' };

const [name, ...options] = process.argv.slice(2);
if (soaks[name] === undefined) {
  process.stderr.write(`bulkhead: there is no long run ${name}. There are ${Object.keys(soaks).join(', ')}.\n`);
  process.exit(2);
}
const node = await setUp();
process.exitCode = await runAttached(node, [join(projectRoot, soaks[name]), ...options], { env: toolEnvironment() });
