/** The PostgreSQL servers of the comparison. */
import { startPostgres } from '../../../../scripts/services.mjs';
import { Database } from '../../../src/adapters/postgres/database.ts';
import { migrate } from '../../../src/adapters/postgres/migrations.ts';
import { onServer, testTemplate, urlAt } from '../../../test/support/server-database.ts';
import type { SystemName } from './system.ts';

/** The tests' defaults are too small for an index over everybody. */
const serverSettings = { shared_buffers: '1GB', max_parallel_maintenance_workers: '1' };

/** One server at a time, of one family of systems: the modes of pgvector ask the same rows. */
export class Servers implements AsyncDisposable {
  #running: { readonly family: 'bulkhead' | 'pgvector'; readonly url: string; readonly stop: () => Promise<void> } | undefined;

  /** Undefined: it needs none. */
  async urlFor(system: SystemName): Promise<string | undefined> {
    const family = system === 'bulkhead-server' ? 'bulkhead' : system.startsWith('pgvector') ? 'pgvector' : undefined;
    if (this.#running?.family !== family) await this[Symbol.asyncDispose]();
    if (family === undefined || this.#running !== undefined) return this.#running?.url;
    const server = await startPostgres({ isFresh: true, settings: serverSettings });
    this.#running = { family, url: server.url, stop: () => server.stop() };
    if (family === 'bulkhead') await migrateTemplate(server.url);
    return server.url;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const running = this.#running;
    this.#running = undefined;
    await running?.stop();
  }
}

async function migrateTemplate(serverUrl: string): Promise<void> {
  await onServer([`CREATE DATABASE ${testTemplate}`], serverUrl);
  const template = new Database({ connection: { url: urlAt(serverUrl, testTemplate) }, poolSize: 1, queryTimeoutMs: 60_000 });
  try {
    await migrate(template);
  } finally {
    await template.close();
  }
}
