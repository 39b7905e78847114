/** Before the suites of the project `server`: a real PostgreSQL, and in it a migrated database to copy. After them it is stopped. */
import { startPostgres, whyNoServers } from '../../../scripts/services.mjs';
import { Database } from '../../src/adapters/postgres/database.ts';
import { migrate } from '../../src/adapters/postgres/migrations.ts';
import { onServer, testTemplate, urlOf } from './server-database.ts';

export default async function startServer(): Promise<(() => Promise<void>) | undefined> {
  const server = await startPostgres().catch((error: unknown) => {
    // Each suite of the project fails with it, and only those: a run without a server must not look like one with.
    process.env['TEST_SERVER_PROBLEM'] = whyNoServers() ?? String(error);
    return undefined;
  });
  if (server === undefined) return undefined;
  process.env['TEST_SERVER_URL'] = server.url;
  await onServer([`DROP DATABASE IF EXISTS ${testTemplate} WITH (FORCE)`, `CREATE DATABASE ${testTemplate}`]);
  const template = new Database({ connection: { url: urlOf(testTemplate) }, poolSize: 1, queryTimeoutMs: 30_000 });
  await migrate(template);
  await template.close();
  return () => server.stop();
}
