/** The end of a tenant's stay: exports and imports, erasing, the owner's database and the surfaces outside of the tables. */
import type { FileUsageJournal } from '../adapters/journal-file/usage-journal.ts';
import { Database } from '../adapters/postgres/database.ts';
import { ErasureRecords } from '../adapters/postgres/erasure-records.ts';
import { SiloSurface } from '../adapters/postgres/erasure-silo.ts';
import { OwnerDatabase } from '../adapters/postgres/owner-database.ts';
import { PostgresTenantEraser } from '../adapters/postgres/tenant-eraser.ts';
import { PostgresTenantExporter } from '../adapters/postgres/tenant-exporter.ts';
import { PostgresTenantImporter } from '../adapters/postgres/tenant-importer.ts';
import { DirectoryArchiveShelf } from '../adapters/tenant-archive/archive-shelf.ts';
import { CanaryTokens } from '../audit/canary-token.ts';
import type { Config } from '../config/schema.ts';
import { CanaryPlanting } from '../jobs/canary-planting.ts';
import { TenantErasures } from '../jobs/tenant-erasures.ts';
import { TenantExports } from '../jobs/tenant-exports.ts';
import type { Clock } from '../primitives/clock.ts';
import type { IdSource } from '../primitives/ids.ts';
import { DocumentSigner } from '../primitives/signed-document.ts';
import type { Logger } from '../telemetry/logger.ts';
import { mintOperatorScope } from '../tenancy/mint-operator-scope.ts';
import type { TenantRegistry } from '../tenancy/tenant-directory.ts';
import type { ErasureSurface } from '../tenancy/tenant-erasure.ts';
import type { Documents } from './documents.ts';
import type { Secrets } from './secrets.ts';
import type { Silos } from './silos.ts';

export interface LifecycleParts {
  readonly config: Config;
  readonly shared: Database;
  readonly directory: TenantRegistry;
  readonly silos: Silos;
  readonly documents: Documents;
  readonly surfaces: readonly ErasureSurface[];
  readonly secrets: Secrets;
  readonly clock: Clock;
  readonly ids: IdSource;
  readonly logger: Logger;
}

export interface Lifecycle extends AsyncDisposable {
  readonly erasures: TenantErasures;
  readonly exports: TenantExports;
  readonly signer: DocumentSigner;
}

/** One part of a table aims at 4 MiB; a row of a file's body can be larger than that. */
const memberBytesMax = 64 * 1_024 * 1_024;
const membersMax = 100_000;
/** Other processes hear of a change within 5 s; here it is in force at once, and what ran needs a moment to be billed. */
const drainMs = { server: 6_000, embedded: 500 } as const;

export async function openLifecycle(parts: LifecycleParts): Promise<Lifecycle> {
  const { config, shared, directory, silos, documents, secrets, clock, logger } = parts;
  await using stack = new AsyncDisposableStack();
  const engine = config.database.url === undefined ? 'embedded' : 'server';
  const signer = new DocumentSigner(secrets.documentSigning);
  const isOnlyProcess = engine === 'embedded';
  const owner = ownerOf(parts, stack);
  const { archiveBytesMax } = config.bounds;
  const shelf = new DirectoryArchiveShelf({
    dataDir: config.dataDir,
    signer,
    bounds: { archiveBytesMax, memberBytesMax, membersMax },
  });
  const exports = stack.use(
    new TenantExports({
      exporter: new PostgresTenantExporter({ shared, homes: silos.homes, directory, engine }),
      importer: new PostgresTenantImporter({ shared, homes: silos.homes, owner, clock, logger, isOnlyProcess }),
      shelf,
      nowMs: () => clock.nowMs(),
      logger,
    }),
  );
  await exports.recover(mintOperatorScope('job:import'));
  const planter = new CanaryPlanting({
    tokens: new CanaryTokens(secrets.canary),
    capabilitiesOf: (tenant) => documents.data.bind(tenant),
    shelfOf: (tenant) => documents.shelfOf(tenant),
    ids: parts.ids,
    nowMs: () => clock.nowMs(),
  });
  const eraser = new PostgresTenantEraser({
    owner,
    records: new ErasureRecords(shared, clock),
    registry: directory,
    homes: silos.homes,
    silo: new SiloSurface(silos),
    planter,
    surfaces: [...parts.surfaces, shelf, residentsSurface(documents)],
    signer,
    dataDir: config.dataDir,
    drainMs: drainMs[engine],
    clock,
    logger,
    isOnlyProcess,
  });
  const erasures = stack.use(new TenantErasures(eraser, logger));
  const opened = stack.move();
  return { erasures, exports, signer, [Symbol.asyncDispose]: () => opened.disposeAsync() };
}

/** Its files hold a tenant's events until the ledger has them and a while longer. */
export function journalSurface(journal: FileUsageJournal): ErasureSurface {
  return { name: 'usage journal', count: (tenantId) => journal.linesOf(tenantId), erase: () => journal.empty() };
}

function residentsSurface({ residents }: Documents): ErasureSurface {
  return {
    name: 'partitions in memory',
    count: async (tenantId) => residents.heldOf(tenantId),
    erase: async (tenantId) => residents.drop(tenantId),
  };
}

function ownerOf({ config, shared }: LifecycleParts, stack: AsyncDisposableStack): OwnerDatabase | undefined {
  const operator = mintOperatorScope('job:erasure');
  const { url, ownerUrl } = config.database;
  if (url === undefined) return new OwnerDatabase(operator, shared, 'embedded');
  if (ownerUrl === undefined) return undefined;
  const database = new Database({
    connection: { url: ownerUrl },
    poolSize: 2,
    queryTimeoutMs: config.bounds.tableRewriteMaxMs,
  });
  stack.defer(() => database.close());
  return new OwnerDatabase(operator, database, 'server');
}
