/** Tenants with documents, conversations and usage, and the eraser over them; on either engine, pooled and siloed. */
import { PostgresFileCabinet } from '../../src/adapters/postgres/documents-files.ts';
import { PostgresIngestionShelf } from '../../src/adapters/postgres/documents-ingestion.ts';
import { PostgresVectorStoreCabinet } from '../../src/adapters/postgres/documents-stores.ts';
import { ErasureRecords } from '../../src/adapters/postgres/erasure-records.ts';
import { SiloSurface } from '../../src/adapters/postgres/erasure-silo.ts';
import { openIdempotencyCabinet } from '../../src/adapters/postgres/idempotency.ts';
import { OwnerDatabase } from '../../src/adapters/postgres/owner-database.ts';
import { openResponseCabinet } from '../../src/adapters/postgres/responses.ts';
import { PostgresTenantDirectory } from '../../src/adapters/postgres/tenant-directory.ts';
import { type EraseStep, PostgresTenantEraser } from '../../src/adapters/postgres/tenant-eraser.ts';
import { openUsageReader, PostgresUsageLedger } from '../../src/adapters/postgres/usage-ledger.ts';
import { CanaryTokens } from '../../src/audit/canary-token.ts';
import { CanaryPlanting } from '../../src/jobs/canary-planting.ts';
import { JobEnvelopes } from '../../src/jobs/job-envelope.ts';
import { systemClock } from '../../src/primitives/clock.ts';
import { systemIds } from '../../src/primitives/ids.ts';
import { DocumentSigner } from '../../src/primitives/signed-document.ts';
import { silentLogger } from '../../src/telemetry/logger.ts';
import type { TenantCapabilities } from '../../src/tenancy/capabilities.ts';
import type { Principal } from '../../src/tenancy/principal.ts';
import type { CanaryPlanter, ErasureSurface } from '../../src/tenancy/tenant-erasure.ts';
import { usageEvent } from '../contracts/usage-events.ts';
import { chunking, dimensions, fingerprint, hashedEmbedder, question } from '../retrieval/library.ts';
import { openSiloWorld, operator, type SiloWorld } from '../silos/silo-world.ts';
import { principalOf, tenantId } from '../support/embedded-database.ts';

export { operator };
export const signer = new DocumentSigner(Buffer.alloc(32, 5));
const envelopes = new JobEnvelopes(Buffer.alloc(32, 7));
const never = new AbortController().signal;

export interface ErasureWorld extends AsyncDisposable {
  readonly silo: SiloWorld;
  readonly eraser: PostgresTenantEraser;
  readonly directory: PostgresTenantDirectory;
  cabinets(tenant: string): TenantCapabilities;
  /** A store of these texts, an answer, a recorded answer, a key, and usage. */
  fill(tenant: string, texts: readonly string[]): Promise<string>;
  ask(tenant: string, storeId: string): Promise<readonly string[]>;
}

export interface ErasureWorldOptions {
  readonly dataDir?: string;
  readonly onStep?: (step: EraseStep) => void | Promise<void>;
  readonly surfaces?: readonly ErasureSurface[];
  /** Wraps what plants. */
  readonly planting?: (planter: CanaryPlanter) => CanaryPlanter;
}

export async function openErasureWorld(options: ErasureWorldOptions = {}): Promise<ErasureWorld> {
  const silo = await openSiloWorld({ recovers: true, ...(options.dataDir !== undefined && { dataDir: options.dataDir }) });
  const directory = new PostgresTenantDirectory(silo.shared, systemClock);
  const cabinets = (tenant: Principal) => cabinetsOf(silo, tenant);
  const planter = new CanaryPlanting({
    tokens: new CanaryTokens(Buffer.alloc(32, 9)),
    capabilitiesOf: cabinets,
    shelfOf: (tenant) => new PostgresIngestionShelf(silo.homes.forTenant(tenant)),
    ids: systemIds,
    nowMs: () => systemClock.nowMs(),
  });
  const engine = process.env['BULKHEAD_TEST_ENGINE'] === 'server' ? 'server' : 'embedded';
  const eraser = new PostgresTenantEraser({
    owner: new OwnerDatabase(operator, silo.shared, engine),
    records: new ErasureRecords(silo.shared, systemClock),
    registry: directory,
    homes: silo.homes,
    silo: new SiloSurface({ source: silo.source, silos: silo.silos, register: silo.register }),
    planter: options.planting?.(planter) ?? planter,
    surfaces: options.surfaces ?? [],
    signer,
    dataDir: silo.dataDir,
    drainMs: 10,
    clock: systemClock,
    logger: silentLogger,
    isOnlyProcess: true,
    ...(options.onStep && { onStep: options.onStep }),
  });
  return {
    silo,
    eraser,
    directory,
    cabinets: (tenant) => cabinets(principalOf(tenant)),
    fill: (tenant, texts) => fill(silo, { directory, tenant, texts }),
    async ask(tenant, storeId) {
      const { vectorStores } = cabinets(principalOf(tenant));
      const asked = ['pump pressure in winter', 'who signs the lease', 'storm damage report'];
      const answers: string[] = [];
      for (const text of asked) answers.push(fingerprint(await vectorStores.search(storeId, question(text))));
      return answers;
    },
    [Symbol.asyncDispose]: () => silo[Symbol.asyncDispose](),
  };
}

function cabinetsOf(world: SiloWorld, principal: Principal): TenantCapabilities {
  const database = world.homes.forTenant(principal);
  const quota = { filesPerTenantMax: 8, fileBytesPerTenantMax: 1_024 ** 3, vectorStoresPerTenantMax: 2 };
  const common = { database, ids: systemIds, clock: systemClock, quota, principal, sealJob: envelopes.seal.bind(envelopes) };
  return {
    files: new PostgresFileCabinet(common),
    vectorStores: new PostgresVectorStoreCabinet({
      ...common,
      onEnqueued: () => {},
      embedding: { model: 'local-hash-384', dimensions },
      language: 'english',
    }),
    responses: openResponseCabinet(database),
    usage: openUsageReader(world.shared.forTenant(principal)),
    idempotency: openIdempotencyCabinet(database, systemClock),
  };
}

async function fill(
  world: SiloWorld,
  { directory, tenant, texts }: { readonly directory: PostgresTenantDirectory; readonly tenant: string; readonly texts: readonly string[] },
): Promise<string> {
  const principal = principalOf(tenant);
  const { files, vectorStores, responses, idempotency } = cabinetsOf(world, principal);
  const shelf = new PostgresIngestionShelf(world.homes.forTenant(principal));
  const store = await vectorStores.create({ name: 'test', metadata: {} });
  for (const text of texts) {
    const file = await files.create({ filename: 'note.txt', purpose: 'assistants', body: Buffer.from(text) });
    await vectorStores.attachFile(store.id, { fileId: file.id, attributes: { length: text.length }, chunking });
    const draft = await shelf.begin({ storeId: store.id, fileId: file.id });
    const [embedding] = await hashedEmbedder.embed([text], never);
    await draft?.append([{ ordinal: 0, text, embedding: embedding as Float32Array }]);
    await draft?.publish();
  }
  await responses.create({ id: `resp_${tenant}`, createdAtMs: 1, response: { text: texts[0] }, inputItems: [] });
  await idempotency.claim('POST /v1/x', `key-${tenant}`, 'a'.repeat(64));
  await new PostgresUsageLedger(world.shared).append([usageEvent(1, { tenantId: tenantId(tenant) })]);
  await directory.createApiKey(operator, {
    id: `k-${tenant}`.slice(0, 8),
    tenantId: tenantId(tenant),
    name: 'key',
    environment: 'live',
    digest: Buffer.alloc(32),
    pepperVersion: 1,
    lastFour: 'abcd',
    limits: {},
  });
  return store.id;
}
