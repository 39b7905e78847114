// `npm run bench`: every benchmark in its quick form; `npm run bench -- gateway --full`: one of them with its own options.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { projectRoot, runAttached, setUp, toolEnvironment } from './set-up.mjs';

const benches = {
  fairness: 'platform/bench/fairness/bench-fairness.ts',
  gateway: 'platform/bench/gateway/bench-gateway.ts',
  scheduler: 'platform/bench/scheduler/bench-scheduler.ts',
  limits: 'platform/bench/limits/bench-limits.ts',
  replicas: 'platform/bench/replicas/bench-replicas.ts',
  residents: 'platform/bench/retrieval/residents.ts',
  tenants: 'platform/bench/tenants/bench-tenants.ts',
  whales: 'platform/bench/retrieval/whales.ts',
  retrieval: ['platform/bench/retrieval/quality.ts', 'platform/bench/retrieval/comparison/comparison.ts'],
};

const [name, ...options] = process.argv.slice(2);
const chosen = name === undefined ? Object.keys(benches) : [name];
if (name !== undefined && benches[name] === undefined) {
  process.stderr.write(`bulkhead: there is no benchmark ${name}. There are ${Object.keys(benches).join(', ')}.\n`);
  process.exit(2);
}

const node = await setUp();
let failed = 0;
for (const [bench, path] of chosen.flatMap((each) => [benches[each]].flat().map((script) => [each, script]))) {
  const script = join(projectRoot, path);
  if (!existsSync(script)) {
    process.stdout.write(`\n${bench}: not in this checkout\n`);
    // Asked for by name, an absent benchmark is a failure; among all of them it is only left out.
    if (name !== undefined) failed++;
    continue;
  }
  process.stdout.write(`\n== ${bench} ==\n`);
  const code = await runAttached(node, [script, ...options], { env: toolEnvironment() });
  if (code !== 0) failed++;
}
process.exitCode = failed === 0 ? 0 : 1;
