/**
 * A process that erases a tenant and is killed at a step, or after some milliseconds, for erasure-kills.test.ts and long runs:
 * `node erasure-child.ts DIRECTORY STEP` or `node erasure-child.ts DIRECTORY after:MILLISECONDS`. Ends with 0 when nobody killed it.
 */
import { principalOf } from '../support/embedded-database.ts';
import { openErasureWorld, operator } from './erasure-world.ts';

const [dataDir = '', stopAt = ''] = process.argv.slice(2);
const kill = () => process.kill(process.pid, 'SIGKILL');
const [, afterMs] = /^after:(\d+)$/.exec(stopAt) ?? [];
const world = await openErasureWorld({
  dataDir,
  onStep: (step) => {
    if (step === stopAt) kill();
  },
});
if (afterMs !== undefined) setTimeout(kill, Number(afterMs));
await world.eraser.erase(operator, principalOf('acme'), { signal: new AbortController().signal });
process.exit(0);
