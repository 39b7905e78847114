/** A migrated database for tests: an embedded one in a temporary directory, or in the project `server` one of its own on a real server. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Database } from '../../src/adapters/postgres/database.ts';
import { EmbeddedEngine } from '../../src/adapters/postgres/embedded-engine.ts';
import { migrate } from '../../src/adapters/postgres/migrations.ts';
import type { KeyRing } from '../../src/encryption/key-ring.ts';
import { parseTenantId, type TenantId } from '../../src/primitives/ids.ts';
import { silentLogger } from '../../src/telemetry/logger.ts';
import { mintPrincipal } from '../../src/tenancy/mint-principal.ts';
import type { Principal } from '../../src/tenancy/principal.ts';
import { copyTemplate } from './database-template.ts';
import { testKeyRing } from './key-ring.ts';
import { openServerDatabase } from './server-database.ts';

export interface TestDatabase extends AsyncDisposable {
  readonly database: Database;
}

export interface EmbeddedTestDatabase extends TestDatabase {
  readonly engine: EmbeddedEngine;
  readonly dataDir: string;
}

interface TestDatabaseOptions {
  readonly dataDir?: string;
  readonly queryTimeoutMs?: number;
  readonly keyRing?: KeyRing;
}

export function openTestDatabase(options: TestDatabaseOptions = {}): Promise<TestDatabase> {
  return process.env['BULKHEAD_TEST_ENGINE'] === 'server' ? openServerDatabase(options.keyRing) : openEmbeddedTestDatabase(options);
}

export async function openEmbeddedTestDatabase(options: TestDatabaseOptions = {}): Promise<EmbeddedTestDatabase> {
  const dataDir = options.dataDir ?? mkdtempSync(join(tmpdir(), 'bulkhead-db-'));
  const queryTimeoutMs = options.queryTimeoutMs ?? 30_000;
  await copyTemplate(dataDir);
  const engine = await EmbeddedEngine.open({ dataDir, queryTimeoutMs, logger: silentLogger });
  const database = new Database({
    connection: { socketDir: engine.socketDir },
    poolSize: 10,
    queryTimeoutMs,
    whenOpen: () => engine.whenOpen(),
    keyRing: options.keyRing ?? testKeyRing(),
  });
  await migrate(database);
  return {
    database,
    engine,
    dataDir,
    async [Symbol.asyncDispose]() {
      await database.close();
      await engine.close();
      if (options.dataDir === undefined) rmSync(dataDir, { recursive: true, force: true });
    },
  };
}

export function tenantId(text: string): TenantId {
  const id = parseTenantId(text);
  if (id === undefined) throw new Error(`${text} is not a tenant id`);
  return id;
}

export function principalOf(tenant: string, user = 'tester'): Principal {
  return mintPrincipal({ tenantId: tenantId(tenant), kind: 'api-key', user, keyId: 'key_test' });
}
