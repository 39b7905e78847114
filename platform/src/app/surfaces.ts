/** The route table: data plane, control plane, operations. */
import type { IncomingHttpHeaders } from 'node:http';
import { auditRoutes } from '../admin/audit-routes.ts';
import { deploymentRoutes } from '../admin/deployment-routes.ts';
import { embeddingRoutes } from '../admin/embedding-routes.ts';
import { encryptionRoutes, type KeyRotator } from '../admin/encryption-routes.ts';
import { erasureRoutes } from '../admin/erasure-routes.ts';
import { exportRoutes } from '../admin/export-routes.ts';
import { fairnessRoutes } from '../admin/fairness-routes.ts';
import type { GiveDatabase } from '../admin/given-database.ts';
import { moveRoutes } from '../admin/move-routes.ts';
import { placementRoutes } from '../admin/placement-routes.ts';
import { statusRoutes } from '../admin/status-routes.ts';
import { tenantRoutes } from '../admin/tenant-routes.ts';
import { type OperatorUsage, usageRoutes } from '../admin/usage-routes.ts';
import type { Config } from '../config/schema.ts';
import { fileRoutes } from '../gateway/openai/file-routes.ts';
import { inferenceRoutes } from '../gateway/openai/inference-routes.ts';
import { responseRoutes } from '../gateway/openai/response-routes.ts';
import { vectorStoreRoutes } from '../gateway/openai/vector-store-routes.ts';
import type { OperatorRoute, Route } from '../gateway/route.ts';
import type { IsolationAudits } from '../jobs/isolation-audits.ts';
import type { Reembedding } from '../jobs/reembedding.ts';
import type { TenantMoves } from '../jobs/tenant-moves.ts';
import type { PriceBook } from '../metering/price-book.ts';
import type { UsageJournal } from '../metering/usage-journal.ts';
import type { IdSource, TenantId } from '../primitives/ids.ts';
import type { InferenceParts } from '../request-path/serve-inference.ts';
import type { RetrievalPath } from '../request-path/serve-retrieval.ts';
import type { PoolFairness } from '../scheduler/fairness-record.ts';
import { mintOperatorScope } from '../tenancy/mint-operator-scope.ts';
import type { PlacementKeeper } from '../tenancy/placement.ts';
import type { TenantRegistry } from '../tenancy/tenant-directory.ts';
import type { Identity } from './identity.ts';
import type { Lifecycle } from './lifecycle.ts';

export interface SurfaceParts {
  readonly path: InferenceParts;
  readonly retrieval: RetrievalPath;
  readonly ids: IdSource;
  readonly config: Config;
  readonly identity: Identity;
  readonly directory: TenantRegistry;
  readonly moves: TenantMoves;
  readonly lifecycle: Pick<Lifecycle, 'erasures' | 'exports' | 'signer'>;
  /** Undefined where no store can be placed. */
  readonly placements: PlacementKeeper | undefined;
  readonly reembedding: Reembedding;
  readonly rotation: KeyRotator;
  readonly settle: (tenantId: TenantId) => Promise<void>;
  readonly giveDatabase: GiveDatabase;
  readonly audits: IsolationAudits;
  readonly fairness: () => readonly PoolFairness[];
  readonly usage: OperatorUsage;
  readonly journal: UsageJournal;
  readonly priceBook: PriceBook;
  readonly isOperator: (headers: IncomingHttpHeaders) => boolean;
  readonly probe: () => Promise<string | undefined>;
}

/** Most tokens of retrieved text in one prompt: room for twenty chunks of the default size. */
const contextTokensMax = 16_000;
/** Ingestion of a page takes some hundred milliseconds; the SDK would wait 5 s. */
const pollAfterMs = 250;

export function surfaces(parts: SurfaceParts): readonly Route[] {
  const { path, retrieval, ids, config, identity, directory, moves, reembedding, audits, usage, journal, priceBook } = parts;
  const { clock, metrics, inference } = path;
  const operator = mintOperatorScope('admin-token');
  const nowMs = () => clock.nowMs();
  const control: readonly OperatorRoute[] = [
    ...tenantRoutes({
      operator,
      registry: directory,
      keys: identity.apiKeys,
      tierNames: new Set(Object.keys(config.tiers)),
      settle: parts.settle,
      giveDatabase: parts.giveDatabase,
      nowMs,
    }),
    ...encryptionRoutes({ operator, registry: directory, rotation: parts.rotation }),
    ...moveRoutes({ operator, registry: directory, moves, giveDatabase: parts.giveDatabase }),
    ...exportRoutes({ operator, registry: directory, exports: parts.lifecycle.exports }),
    ...erasureRoutes({ operator, registry: directory, erasures: parts.lifecycle.erasures, signingKey: parts.lifecycle.signer }),
    ...placementRoutes({ operator, registry: directory, placements: parts.placements }),
    ...embeddingRoutes({ operator, registry: directory, reembedding }),
  ];
  return [
    ...inferenceRoutes(path),
    ...responseRoutes({ ...path, retrieval, ids, contextTokensMax }),
    ...fileRoutes({ nowMs, documentBytesMax: config.bounds.documentBytesMax }),
    ...vectorStoreRoutes({ retrieval, pollAfterMs }),
    ...control.map((route) => seenAtOnce(route, identity)),
    ...auditRoutes({ audits }),
    ...usageRoutes({ operator, usage, flushLedger: () => journal.flush(), nowMs }),
    ...fairnessRoutes({ report: parts.fairness }),
    ...deploymentRoutes(inference),
    ...statusRoutes({
      metrics,
      isOperator: parts.isOperator,
      notReady: parts.probe,
      prices: () => ({ version: priceBook.versionAt(clock.nowMs()) }),
    }),
  ];
}

/** A change of the directory is in force in this process before the operator reads the answer. */
function seenAtOnce(route: OperatorRoute, identity: Identity): OperatorRoute {
  if (route.method === 'GET') return route;
  return {
    ...route,
    async handle(exchange) {
      const answer = await route.handle(exchange);
      await identity.directoryChanged();
      return answer;
    },
  };
}
