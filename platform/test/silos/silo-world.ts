/** A shared embedded database with tenants' own ones beside it, in a temporary directory. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Database } from '../../src/adapters/postgres/database.ts';
import { EmbeddedSilos } from '../../src/adapters/postgres/embedded-silos.ts';
import { MoveRecords } from '../../src/adapters/postgres/move-records.ts';
import { OpenSilos } from '../../src/adapters/postgres/open-silos.ts';
import { ServerSilos } from '../../src/adapters/postgres/server-silos.ts';
import { SiloRegister } from '../../src/adapters/postgres/silo-register.ts';
import type { SiloSource } from '../../src/adapters/postgres/silo-source.ts';
import { PostgresTenantDirectory } from '../../src/adapters/postgres/tenant-directory.ts';
import { TenantHomes } from '../../src/adapters/postgres/tenant-homes.ts';
import { type MoveStep, PostgresTenantMover } from '../../src/adapters/postgres/tenant-mover.ts';
import { systemClock } from '../../src/primitives/clock.ts';
import { silentLogger } from '../../src/telemetry/logger.ts';
import { mintOperatorScope } from '../../src/tenancy/mint-operator-scope.ts';
import { openTestDatabase, principalOf, tenantId } from '../support/embedded-database.ts';
import { testKeyRing } from '../support/key-ring.ts';
import { urlOf } from '../support/server-database.ts';

export const operator = mintOperatorScope('test');

export interface SiloWorld extends AsyncDisposable {
  readonly shared: Database;
  readonly homes: TenantHomes;
  readonly mover: PostgresTenantMover;
  readonly silos: OpenSilos;
  readonly register: SiloRegister;
  readonly source: SiloSource;
  readonly dataDir: string;
  addTenant(id: string): Promise<void>;
}

export async function openSiloWorld(
  options: { readonly dataDir?: string; readonly onStep?: (step: MoveStep) => void | Promise<void>; readonly recovers?: boolean } = {},
): Promise<SiloWorld> {
  const dataDir = options.dataDir ?? mkdtempSync(join(tmpdir(), 'bulkhead-silos-'));
  const db = await openTestDatabase({ dataDir });
  const shared = db.database;
  const clock = systemClock;
  const common = { queryTimeoutMs: 30_000, poolSize: 4, inspect: async () => {} };
  const isServer = process.env['BULKHEAD_TEST_ENGINE'] === 'server';
  const source = isServer
    ? new ServerSilos({ ...common, url: urlOf('postgres'), ownerUrl: urlOf('postgres') })
    : new EmbeddedSilos({ ...common, dataDir, logger: silentLogger });
  const bounds = { openMax: 2, idleMs: 60_000, roomWaitMaxMs: 10_000 };
  const silos = new OpenSilos(source, { bounds, clock, logger: silentLogger });
  const register = new SiloRegister(shared, clock);
  const mover = new PostgresTenantMover({
    shared,
    source,
    silos,
    register,
    records: new MoveRecords(shared, clock),
    clock,
    logger: silentLogger,
    isOnlyProcess: true,
    ...(options.onStep && { onStep: options.onStep }),
  });
  if (options.recovers === true) await mover.recover(operator, (id) => principalOf(id));
  const homes = await TenantHomes.open({ shared, register, silos, keyRing: testKeyRing(), moveWaitMaxMs: 20_000, logger: silentLogger });
  const directory = new PostgresTenantDirectory(shared, clock);
  return {
    shared,
    homes,
    mover,
    silos,
    register,
    source,
    dataDir,
    async addTenant(id) {
      await directory.create(operator, { id: tenantId(id), name: id, tier: 'free', isolation: 'pooled', overrides: {} });
    },
    async [Symbol.asyncDispose]() {
      await silos[Symbol.asyncDispose]();
      await db[Symbol.asyncDispose]();
      if (options.dataDir === undefined) rmSync(dataDir, { recursive: true, force: true });
    },
  };
}
