// `npm test`: set up, check the code, run every test, and end with the plain line `N passed, N failed`.
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { projectRoot, runAttached, setUp, toolEnvironment } from './set-up.mjs';
import { runStaticCheck, staticChecks } from './static-checks.mjs';

await setUp();
const reportFile = join(projectRoot, '.cache', 'test-report.json');
mkdirSync(join(projectRoot, '.cache'), { recursive: true });
rmSync(reportFile, { force: true });

let passed = 0;
let failed = 0;
for (const check of staticChecks) {
  const result = await runStaticCheck(check);
  process.stdout.write(`  ${result.passed ? 'ok  ' : 'FAIL'} ${check.name} ${result.seconds.toFixed(1)} s\n`);
  if (result.passed) passed++;
  else {
    failed++;
    process.stdout.write(`${result.output}\n`);
  }
}

const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${reportFile}`];
const exitCode = await runAttached('vitest', ['run', ...reporters, ...process.argv.slice(2)], { cwd: projectRoot, env: toolEnvironment() });
const totals = readTotals();
passed += totals.passed;
failed += totals.failed;
// A crashed file, an unhandled rejection or an empty run fails even when no single test did.
if (exitCode !== 0 && totals.failed === 0) failed++;
process.stdout.write(`\n${passed} passed, ${failed} failed\n`);
process.exitCode = failed === 0 ? 0 : 1;

function readTotals() {
  try {
    const report = JSON.parse(readFileSync(reportFile, 'utf8'));
    return { passed: report.numPassedTests, failed: report.numFailedTests };
  } catch {
    return { passed: 0, failed: 1 };
  }
}
