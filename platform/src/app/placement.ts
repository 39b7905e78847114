/** Shards and indexes of large stores, where they can be made: on a server, with the login that owns the schema. */
import { Database } from '../adapters/postgres/database.ts';
import type { ApproximateSearch } from '../adapters/postgres/documents-search-approximate.ts';
import { PostgresPlacementKeeper } from '../adapters/postgres/placement-keeper.ts';
import { RecallWatch } from '../adapters/postgres/recall-watch.ts';
import type { Config } from '../config/schema.ts';
import { runPlacementSweep } from '../jobs/placement-sweep.ts';
import type { Clock } from '../primitives/clock.ts';
import type { Random } from '../primitives/random.ts';
import type { Logger } from '../telemetry/logger.ts';
import { mintOperatorScope } from '../tenancy/mint-operator-scope.ts';
import type { PlacementKeeper } from '../tenancy/placement.ts';
import type { Principal } from '../tenancy/principal.ts';

export interface PlacementParts {
  readonly config: Config;
  readonly shared: Database;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
}

export interface Placements {
  /** Undefined where nothing can be placed. */
  readonly keeper: PlacementKeeper | undefined;
  /** How a tenant's large stores are searched; undefined on the embedded engine. */
  approximateFor(principal: Principal): ApproximateSearch | undefined;
  /** Starts the sweeps; dispose of what it returns to stop. */
  start(): AsyncDisposable;
}

/** The lock of the sweep, the work it does, and an operator who looks. */
const ownerConnections = 4;

export function openPlacements({ config, shared, clock, random, logger }: PlacementParts): Placements {
  const { url, ownerUrl } = config.database;
  const { retrieval } = config;
  // The embedded engine builds no approximate index: a build would hold up everybody.
  if (url === undefined) return { keeper: undefined, approximateFor: () => undefined, start: () => ({ async [Symbol.asyncDispose]() {} }) };
  const watch = new RecallWatch(retrieval.recallMin, logger);
  const approximateFor = ({ tenantId }: Principal): ApproximateSearch => ({
    tenantId,
    chunksMin: retrieval.dedicatedChunksMin / 2,
    scanTuplesMax: retrieval.approximateScanTuplesMax,
    shadowShare: retrieval.shadowExactShare,
    random,
    watch,
  });
  if (ownerUrl === undefined) return { keeper: undefined, approximateFor, start: () => ({ async [Symbol.asyncDispose]() {} }) };
  const owner = new Database({ connection: { url: ownerUrl }, poolSize: ownerConnections, queryTimeoutMs: retrieval.indexBuildTimeoutMs });
  const keeper = new PostgresPlacementKeeper({ shared, owner, bounds: retrieval, watch, clock, random, logger });
  return {
    keeper,
    approximateFor,
    start() {
      const stop = new AbortController();
      const sweeps = { keeper, operator: mintOperatorScope('job:placement'), intervalMs: retrieval.placementSweepIntervalMs, logger };
      const running = runPlacementSweep(sweeps, stop.signal);
      return {
        async [Symbol.asyncDispose]() {
          stop.abort();
          await running;
          await owner.close();
        },
      };
    },
  };
}
