/**
 * Composition root: configuration -> adapters -> stages -> surfaces. The only place that chooses adapters. What is opened here is closed here,
 * in the opposite order, on every way out.
 */
import { createHmac } from 'node:crypto';
import { join } from 'node:path';
import { FileUsageJournal } from './adapters/journal-file/usage-journal.ts';
import { openBudgetSource } from './adapters/postgres/budget-spend.ts';
import type { Database } from './adapters/postgres/database.ts';
import { PostgresEmbeddedUpkeep } from './adapters/postgres/embedded-upkeep.ts';
import { admitMasterKeys } from './adapters/postgres/master-keys.ts';
import { PostgresTenantDirectory } from './adapters/postgres/tenant-directory.ts';
import { PostgresOperatorUsage, PostgresUsageLedger } from './adapters/postgres/usage-ledger.ts';
import { PostgresWebhookOutbox } from './adapters/postgres/webhook-outbox.ts';
import { SpoolFolder } from './adapters/spool-folder/spool-folder.ts';
import { sendWebhook } from './adapters/webhook-http/send-webhook.ts';
import { createAdmission } from './admission/admit.ts';
import { createOutputEstimates } from './admission/estimate.ts';
import { SessionGuard } from './admission/session-guard.ts';
import { openKeyRing, openKeyRotation } from './app/at-rest.ts';
import { openAudits } from './app/audit.ts';
import { canaryIssuers } from './app/audit-ground.ts';
import { AuditedDoor } from './app/audited-door.ts';
import { type CutOffParts, cutOffRefused } from './app/cut-off.ts';
import { openDatabase, refuseUnsafe } from './app/database.ts';
import { openDocuments } from './app/documents.ts';
import { openIdentity } from './app/identity.ts';
import { journalSurface, type Lifecycle, openLifecycle } from './app/lifecycle.ts';
import { openLimitStore } from './app/limits.ts';
import { embeddingOf, modelsOf, openPriceBook, openProviders } from './app/models.ts';
import { openReembedding, openRetrieval } from './app/reembedding.ts';
import { openPermits, openReplicas } from './app/replicas.ts';
import { openSecrets } from './app/secrets.ts';
import { openSilos, type Silos, settle } from './app/silos.ts';
import { surfaces } from './app/surfaces.ts';
import { createTenants } from './app/tenants.ts';
import type { LoadedConfig } from './config/load.ts';
import type { Config } from './config/schema.ts';
import type { Route } from './gateway/route.ts';
import { createGateway, type Gateway, type InjectedAnswer, type InjectedRequest } from './gateway/server.ts';
import { createInference } from './inference/deployments.ts';
import { runDatabaseUpkeep } from './jobs/database-upkeep.ts';
import type { IsolationAudits } from './jobs/isolation-audits.ts';
import { runLedgerFlush } from './jobs/ledger-flush.ts';
import { runWebhookDelivery } from './jobs/webhook-delivery.ts';
import { createMeter } from './metering/meter.ts';
import type { PriceBook } from './metering/price-book.ts';
import { systemClock } from './primitives/clock.ts';
import { loadVocabulary } from './primitives/count-tokens.ts';
import { systemIds, type TenantId } from './primitives/ids.ts';
import { systemRandom } from './primitives/random.ts';
import type { InferenceParts } from './request-path/serve-inference.ts';
import type { FairQueue } from './scheduler/fair-queue.ts';
import { FairnessRecord, type PoolFairness } from './scheduler/fairness-record.ts';
import { MemoryFairQueue } from './scheduler/memory-fair-queue.ts';
import type { FairQueueOptions } from './scheduler/weighted-fair-queue.ts';
import type { Logger } from './telemetry/logger.ts';
import { createMetrics, type Metrics } from './telemetry/metrics.ts';
import { mintOperatorScope } from './tenancy/mint-operator-scope.ts';

const clock = systemClock;
const ids = systemIds;

export interface AppOptions {
  readonly loaded: LoadedConfig;
  readonly logger: Logger;
  /** False: serve only `inject`, for commands and tests. */
  readonly listen: boolean;
  /** Told what is being done, as it starts. */
  readonly onStep?: (step: string) => void;
  /** Another queue than the product's, for benchmarks that compare the two; no configuration chooses it. */
  readonly openQueue?: OpenQueue;
}

type OpenQueue = (options: FairQueueOptions) => FairQueue;

export interface App {
  /** Empty when nothing listens. */
  readonly baseUrl: string;
  readonly adminToken: string;
  inject(request: Omit<InjectedRequest, 'body' | 'method'> & { readonly method: string; readonly body?: unknown }): Promise<InjectedAnswer>;
  /** Finishes running streams (bounded), flushes usage, closes the database. Idempotent. */
  close(): Promise<void>;
}

/** Opens everything. Throws when anything is missing; then nothing stays open. */
export async function openApp(options: AppOptions): Promise<App> {
  await using stack = new AsyncDisposableStack();
  const { loaded, logger, onStep = () => {} } = options;
  const { config } = loaded;
  const secrets = openSecrets(config.dataDir, config.auth.secret);
  const adminToken = config.auth.adminToken ?? secrets.demoAdminToken;

  onStep(config.database.url === undefined ? 'embedded PostgreSQL' : 'PostgreSQL');
  const metrics = createMetrics();
  const keyRing = stack.use(openKeyRing({ config, clock, logger, metrics }));
  const { database } = stack.use(await openDatabase(config, logger));
  await admitMasterKeys(database, keyRing.masters, logger);
  const directory = new PostgresTenantDirectory(database, clock);
  await createTenants({ config, logger }, directory, mintOperatorScope('configuration'));
  const base = { config, directory, secrets, clock, ids, logger };
  const silos = stack.use(await openSilos({ ...base, shared: database, keyRing, inspect: refuseUnsafe, urlKey: secrets.siloUrls }));
  const { homes, moves } = silos;

  onStep('models, prices, journal');
  const journal = await openJournal(stack, { config, database, logger });
  const priceBook = openPriceBook(modelsOf(config));
  const { openQueue } = options;
  const path = await openInferencePath(stack, { ...base, database, journal, priceBook, metrics, cacheSalt: secrets.cacheSalt, openQueue });

  onStep('identity, documents');
  const documents = openDocuments({ ...base, database, homes, path: { ...path, ids }, embedding: embeddingOf(config) });
  const reembedding = stack.use(await openReembedding({ config, database, registry: directory, documents, logger }));
  const canaries = canaryIssuers();
  const identity = stack.use(await openIdentity({ ...base, loaded, data: documents.data, issuers: canaries.trusted }));
  stack.use(documents.start());
  reembedding.start();
  const beside = [journalSurface(journal)];
  const lifecycle = stack.use(await openLifecycle({ ...base, shared: database, silos, documents, surfaces: beside }));
  const rotation = stack.use(openKeyRotation({ ...base, keyRing, database, homes }));
  const retrieval = openRetrieval({ config, path, reembedding, logger });
  const edge = identity.edge(adminToken);
  const settleSilo = (tenantId: TenantId) => settle({ directory, logger }, moves, tenantId);
  const door = new AuditedDoor();
  const audited = { ...base, shared: database, homes, identity, canaries, documents, adminToken, door, metrics };
  const audits = openAudits({ ...audited, settle: settleSilo });
  const routes = surfaces({
    ...base,
    path,
    retrieval,
    identity,
    moves,
    lifecycle,
    placements: documents.placements,
    reembedding,
    rotation,
    giveDatabase: (tenantId, given) => silos.give(tenantId, given),
    settle: settleSilo,
    audits,
    fairness: path.fairness,
    usage: new PostgresOperatorUsage(database),
    journal,
    priceBook,
    isOperator: (headers) => edge.operator(headers),
    probe: () => probe(database),
  });
  const spool = new SpoolFolder({ directory: join(config.dataDir, 'spool') });
  const gateway = createGateway({ routes, authenticate: edge, spool, bounds: config.bounds, clock, ids, logger, metrics });
  stack.use(gateway);
  const address = await openDoor(stack, gateway, { options, routes, door, audits });
  startBehind(stack, { ...base, database, identity, gateway, residents: documents.residents, lifecycle, silos });

  const opened = stack.move();
  return {
    baseUrl: address?.url ?? '',
    adminToken,
    inject: ({ method, path: target, headers, body }) => gateway.inject(injected(method, target, { headers, body })),
    close: () => opened.disposeAsync(),
  };
}

interface DoorParts {
  readonly options: AppOptions;
  readonly routes: readonly Route[];
  readonly door: AuditedDoor;
  readonly audits: IsolationAudits;
}

async function openDoor(stack: AsyncDisposableStack, gateway: Gateway, { options, routes, door, audits }: DoorParts) {
  const { listen, loaded } = options;
  const address = listen ? await gateway.listen(loaded.config.server) : undefined;
  door.open(routes, gateway, address);
  // Behind the gateway on the stack: an audit ends before the door it attacks is closed.
  stack.use(audits);
  if (listen) audits.startSchedule();
  return address;
}

async function openJournal(
  stack: AsyncDisposableStack,
  parts: { readonly config: Config; readonly database: Database; readonly logger: Logger },
): Promise<FileUsageJournal> {
  const { config, database, logger } = parts;
  const ledger = new PostgresUsageLedger(database);
  const journal = stack.use(await FileUsageJournal.open({ directory: join(config.dataDir, 'journal'), ledger, logger }));
  startLedgerFlush(stack, { journal, clock, random: systemRandom, logger });
  return journal;
}

interface PathParts {
  readonly config: Config;
  readonly database: Database;
  readonly logger: Logger;
  readonly journal: FileUsageJournal;
  readonly priceBook: PriceBook;
  readonly metrics: Metrics;
  readonly cacheSalt: Buffer;
  readonly openQueue: OpenQueue | undefined;
}

/** Stages 5 to 8 with their in-process adapters. */
async function openInferencePath(
  stack: AsyncDisposableStack,
  parts: PathParts,
): Promise<InferenceParts & { readonly fairness: () => readonly PoolFairness[] }> {
  const { config, database, journal, priceBook, metrics, cacheSalt, openQueue = (options) => new MemoryFairQueue(options) } = parts;
  const { queueRequestsPerTenantMax, queueBytesMax, queueWaitMaxMs, reservationLeaseMs } = config.bounds;
  const providers = await openProviders(config, clock, ids);
  const inference = createInference({ models: modelsOf(config), providers, clock, waitMaxMs: queueWaitMaxMs });
  stack.defer(() => inference.close());
  const replicas = openReplicas(stack, { config, ids, logger: parts.logger });
  const shared = openPermits(stack, replicas, { clock, logger: parts.logger });
  const record = stack.use(new FairnessRecord(clock, () => queue.snapshot()));
  const queue: FairQueue = openQueue({
    clock,
    watcher: record,
    requestsPerTenantMax: queueRequestsPerTenantMax,
    bytesMax: queueBytesMax,
    waitMaxMs: queueWaitMaxMs,
    ...(shared !== undefined && { share: (poolId, pool) => shared.share(poolId, pool) }),
  });
  inference.watchPools(({ poolId, permits, accountPermits: ofAll, resumesInMs = Number.POSITIVE_INFINITY }) =>
    queue.setCapacity(poolId, permits, { resumesInMs, ofAll }),
  );
  stack.defer(() => queue.close());
  const budgets = openBudgetSource(database, () => journal.flush());
  const store = openLimitStore(stack, { replicas, budgets, clock, ids, logger: parts.logger });
  const admission = stack.use(createAdmission({ store, clock, ids, leaseMs: reservationLeaseMs }));
  metrics.watch({
    queued: () => queue.snapshot().reduce((sum, pool) => sum + pool.queued, 0),
    inFlight: () => queue.snapshot().reduce((sum, pool) => sum + pool.inFlight, 0),
    journalPending: () => journal.pendingCount,
  });
  metrics.watchDeployments(() => inference.deployments());
  const salts = new Map<string, string>();
  return {
    inference,
    admission,
    estimates: createOutputEstimates(),
    sessions: new SessionGuard(clock),
    queue,
    meter: createMeter({ priceBook, journal, ids, clock }),
    metrics,
    clock,
    cacheSalt: ({ tenantId }) => saltOf(salts, cacheSalt, tenantId),
    fairness: () => record.report(),
  };
}

/** Nothing runs where nobody is to be told. */
function deliverWebhooks({ webhooks: endpoints }: Config, database: Database, logger: Logger): AsyncDisposable {
  const stop = new AbortController();
  const parts = {
    endpoints,
    outbox: new PostgresWebhookOutbox(database),
    send: sendWebhook,
    operator: mintOperatorScope('job:webhooks'),
    clock,
    random: systemRandom,
    logger,
  };
  const running = endpoints.length === 0 ? Promise.resolve() : runWebhookDelivery(parts, stop.signal);
  return {
    async [Symbol.asyncDispose]() {
      stop.abort();
      await running;
    },
  };
}

/** 170 ms of work that no request should wait for. */
function warmUp(stack: AsyncDisposableStack): void {
  const timer = setTimeout(loadVocabulary, 50);
  stack.defer(() => clearTimeout(timer));
}

function startLedgerFlush(stack: AsyncDisposableStack, parts: Parameters<typeof runLedgerFlush>[0]): void {
  const stop = new AbortController();
  const running = runLedgerFlush(parts, stop.signal);
  stack.defer(async () => {
    stop.abort();
    await running;
  });
}

interface BehindParts extends CutOffParts {
  readonly config: Config;
  readonly database: Database;
  readonly lifecycle: Lifecycle;
  readonly silos: Silos;
}

/** What runs beside the requests. */
function startBehind(stack: AsyncDisposableStack, parts: BehindParts): void {
  const { config, database, gateway, lifecycle, logger, silos } = parts;
  stack.use(cutOffRefused(parts));
  warmUp(stack);
  stack.use(deliverWebhooks(config, database, logger));
  lifecycle.erasures.resume(mintOperatorScope('job:erasure'));
  // A server has autovacuum.
  if (config.database.url !== undefined) return;
  const stop = new AbortController();
  const openExchanges = () => gateway.openExchanges();
  const running = runDatabaseUpkeep({ upkeep: new PostgresEmbeddedUpkeep(database, silos.silos), openExchanges, logger }, stop.signal);
  stack.defer(async () => {
    stop.abort();
    await running;
  });
}

function saltOf(salts: Map<string, string>, secret: Buffer, tenantId: string): string {
  const known = salts.get(tenantId);
  if (known !== undefined) return known;
  const salt = createHmac('sha256', secret).update(tenantId).digest('base64url').slice(0, 32);
  if (salts.size < 100_000) salts.set(tenantId, salt);
  return salt;
}

async function probe(database: Database): Promise<string | undefined> {
  try {
    return (await database.probe()) ? undefined : 'the database gives empty answers';
  } catch {
    return 'the database does not answer';
  }
}

function injected(
  method: string,
  path: string,
  sent: { readonly headers: Readonly<Record<string, string>> | undefined; readonly body: unknown },
): InjectedRequest {
  const { headers = {}, body } = sent;
  const isRaw = Buffer.isBuffer(body) || body === undefined;
  return {
    method: method as InjectedRequest['method'],
    path,
    headers: isRaw ? { host: 'localhost', ...headers } : { host: 'localhost', 'content-type': 'application/json', ...headers },
    ...(body !== undefined && { body: Buffer.isBuffer(body) ? body : JSON.stringify(body) }),
  };
}
