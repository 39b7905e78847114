/** A process that moves a tenant and is killed at a step, for tenant-move-kills.test.ts: `node move-child.ts DIRECTORY DESTINATION STEP`. */
import type { TenantIsolation } from '../../src/tenancy/tenant.ts';
import { principalOf } from '../support/embedded-database.ts';
import { openSiloWorld, operator } from './silo-world.ts';

const [dataDir = '', destination = '', stopAt = ''] = process.argv.slice(2);
const world = await openSiloWorld({
  dataDir,
  onStep: (step) => {
    if (step === stopAt) process.kill(process.pid, 'SIGKILL');
  },
});
const { signal } = new AbortController();
await world.mover.move(operator, principalOf('acme'), { destination: destination as TenantIsolation, signal });
process.exit(0);
