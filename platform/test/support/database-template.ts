/**
 * A migrated embedded database to copy from: initialising PostgreSQL and migrating takes 3 to 5 s of processor for each suite, copying 40 MB a few
 * tenths. Made once for each schema in the project's cache; what the first boot of a user does is tried by the tests that start the product.
 */
import { existsSync } from 'node:fs';
import { cp, mkdir, mkdtemp, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Database } from '../../src/adapters/postgres/database.ts';
import { EmbeddedEngine } from '../../src/adapters/postgres/embedded-engine.ts';
import { migrate, schemaDigest } from '../../src/adapters/postgres/migrations.ts';
import { silentLogger } from '../../src/telemetry/logger.ts';

const cache = fileURLToPath(new URL('../../../.cache/', import.meta.url));

/** Puts a migrated database into a data directory that has none. */
export async function copyTemplate(dataDir: string): Promise<void> {
  if (existsSync(join(dataDir, 'pgdata'))) return;
  await cp(join(await template(), 'pgdata'), join(dataDir, 'pgdata'), { recursive: true });
}

/** Two processes may make it at once: each its own, and the first to finish gives its place. */
async function template(): Promise<string> {
  const directory = join(cache, `test-database-${schemaDigest()}`);
  if (existsSync(directory)) return directory;
  await mkdir(cache, { recursive: true });
  for (const name of await readdir(cache)) {
    // Of an older schema: 40 MB each.
    if (/^test-database-[0-9a-f]{16}$/.test(name)) await rm(join(cache, name), { recursive: true, force: true });
  }
  const making = await mkdtemp(join(cache, 'test-database-half-'));
  try {
    await migrateInto(making);
    await rename(making, directory);
  } catch (error) {
    if (!existsSync(directory)) throw error;
  } finally {
    await rm(making, { recursive: true, force: true });
  }
  return directory;
}

async function migrateInto(dataDir: string): Promise<void> {
  const queryTimeoutMs = 30_000;
  await using engine = await EmbeddedEngine.open({ dataDir, queryTimeoutMs, logger: silentLogger });
  const database = new Database({ connection: { socketDir: engine.socketDir }, poolSize: 1, queryTimeoutMs });
  try {
    await migrate(database);
  } finally {
    await database.close();
  }
}
