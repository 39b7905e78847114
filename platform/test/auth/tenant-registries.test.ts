import { MemoryTenantDirectory } from '../../src/adapters/memory/tenant-directory.ts';
import { PostgresTenantDirectory } from '../../src/adapters/postgres/tenant-directory.ts';
import { describeTenantRegistry } from '../contracts/tenant-registry.ts';
import { openTestDatabase } from '../support/embedded-database.ts';

describeTenantRegistry('the tenant directory in memory', async (clock) => ({
  registry: new MemoryTenantDirectory(clock),
  [Symbol.asyncDispose]: async () => {},
}));

describeTenantRegistry('the tenant directory in PostgreSQL', async (clock) => {
  const test = await openTestDatabase();
  return { registry: new PostgresTenantDirectory(test.database, clock), [Symbol.asyncDispose]: () => test[Symbol.asyncDispose]() };
});
