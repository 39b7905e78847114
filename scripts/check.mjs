// `npm run check`: the fast gate before a commit: static checks and unit tests, under 90 s.
import { projectRoot, runAttached, setUp, toolEnvironment } from './set-up.mjs';
import { runStaticCheck, staticChecks } from './static-checks.mjs';

await setUp();
let failed = 0;
for (const check of staticChecks) {
  const result = await runStaticCheck(check);
  process.stdout.write(`  ${result.passed ? 'ok  ' : 'FAIL'} ${check.name} ${result.seconds.toFixed(1)} s\n`);
  if (result.passed) continue;
  failed++;
  process.stdout.write(`${result.output}\n`);
}
const unit = await runAttached('vitest', ['run', '--project', 'unit', '--reporter=dot'], { cwd: projectRoot, env: toolEnvironment() });
process.exitCode = failed === 0 && unit === 0 ? 0 : 1;
