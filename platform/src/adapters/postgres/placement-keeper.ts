/**
 * Puts large stores into a shard of their tenant's own and gives them an approximate index there:
 *
 *   a shard for the tenant -> mark the store as moving -> rows, a few files at a time -> settle it there
 *   -> build the index while searches are exact -> measure its recall -> search by it, if it found enough
 *
 * and takes stores that became small back. The state of each store is in its own row, so a process that dies at any step leaves work that the next sweep
 * goes on with. One process of all replicas is at it at a time, one store at a time.
 */
import { sql } from 'kysely';
import { assert } from '../../primitives/assert.ts';
import type { Clock } from '../../primitives/clock.ts';
import type { TenantId } from '../../primitives/ids.ts';
import type { Random } from '../../primitives/random.ts';
import type { Logger } from '../../telemetry/logger.ts';
import { OperatorScope } from '../../tenancy/operator-scope.ts';
import type { Placement, PlacementKeeper, StorePlacement, TenantPlacement } from '../../tenancy/placement.ts';
import type { Principal } from '../../tenancy/principal.ts';
import { type Database, TenantDatabase, type TransactionHost } from './database.ts';
import { DatabaseStatementError } from './database-error.ts';
import { measureRecall } from './index-recall.ts';
import type { VectorPlace } from './nearest-vectors.ts';
import type { RecallWatch } from './recall-watch.ts';
import { moveRows, type StoreMove } from './shard-rows.ts';
import { buildIndex, dropOtherIndexes } from './store-index.ts';
import { dedicatedShardMin, type PlacedStore, StorePlacements } from './store-placement.ts';
import { type TenantTable, tenantTables } from './tenant-tables.ts';

export type PlacementStep = 'shard' | 'begun' | 'batch' | 'moved' | 'finished' | 'built' | 'measured' | 'dropped';

export interface PlacementBounds {
  /** A store this large gets a place of its own; below half of it, it goes back. */
  readonly dedicatedChunksMin: number;
  readonly dedicatedShardsMax: number;
  /** recall@10 below which an index is not used. */
  readonly recallMin: number;
  readonly recallSampleQueries: number;
  readonly indexBuildMemoryMb: number;
}

export interface PlacementKeeperParts {
  /** Connections of the login that serves: rows move as their tenant. */
  readonly shared: Database;
  /** Connections of the login that owns the schema; their statements may take as long as an index does. */
  readonly owner: Database;
  readonly bounds: PlacementBounds;
  /** Indexes that were found wanting by searches of this process. */
  readonly watch: RecallWatch;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  /** For tests that end the process at a step. */
  readonly onStep?: (step: PlacementStep) => void | Promise<void>;
}

/** Arbitrary, constant: held by the process that sweeps. */
const sweepLock = 7_070_010;
const tenantsAtOnce = 500;
/** More changes of one store in one sweep would be a fault. */
const changesMax = 6;
/** An index that found too little is built anew and measured again after this long. */
const secondTryMs = 86_400_000;

interface Sweep {
  readonly principalOf: (tenantId: TenantId) => Principal;
  readonly signal: AbortSignal;
  readonly wishes: ReadonlyMap<string, Placement>;
  readonly tables: readonly TenantTable[];
}

export class PostgresPlacementKeeper implements PlacementKeeper {
  readonly #parts: PlacementKeeperParts;
  readonly #placements: StorePlacements;

  constructor(parts: PlacementKeeperParts) {
    this.#parts = parts;
    this.#placements = new StorePlacements(parts.owner);
  }

  async sweep(operator: OperatorScope, principalOf: Sweep['principalOf'], signal: AbortSignal): Promise<number> {
    assert(OperatorScope.is(operator), 'placement is the operator’s');
    const { shared, owner } = this.#parts;
    return owner.withClient(async (client) => {
      const { rows } = await client.query<{ readonly held: boolean }>('SELECT pg_try_advisory_lock($1) AS held', [sweepLock]);
      if (rows[0]?.held !== true) return 0;
      try {
        const tables = (await tenantTables(shared)).filter((table) => table.isSharded);
        return await this.#sweepAll({ principalOf, signal, tables, wishes: await this.#wishes() });
      } finally {
        await client.query('SELECT pg_advisory_unlock($1)', [sweepLock]);
      }
    });
  }

  async find(operator: OperatorScope, tenantId: TenantId): Promise<TenantPlacement> {
    assert(OperatorScope.is(operator), 'placement is the operator’s');
    const wish = (await this.#wishes()).get(tenantId);
    const stores = await this.#unlessAway(() => this.#placements.all(tenantId));
    return { wish, stores: (stores ?? []).map(placementOf) };
  }

  async wish(operator: OperatorScope, tenantId: TenantId, placement: Placement | undefined): Promise<void> {
    await this.#parts.shared.forOperator(operator).write(async (db) => {
      await sql`DELETE FROM control.placement_wish WHERE tenant_id = ${tenantId}`.execute(db);
      if (placement !== undefined)
        await sql`INSERT INTO control.placement_wish (tenant_id, placement) VALUES (${tenantId}, ${placement})`.execute(db);
    });
  }

  async #wishes(): Promise<ReadonlyMap<string, Placement>> {
    const { rows } = await this.#parts.shared
      .forDirectory()
      .read((db) =>
        sql<{ readonly tenant_id: string; readonly placement: Placement }>`SELECT tenant_id, placement FROM control.placement_wish`.execute(
          db,
        ),
      );
    return new Map(rows.map((row) => [row.tenant_id, row.placement]));
  }

  async #sweepAll(sweep: Sweep): Promise<number> {
    const { dedicatedChunksMin } = this.#parts.bounds;
    let changed = await this.#writeDownFailures();
    for (let after = ''; ; ) {
      const tenants = await this.#placements.tenantsAfter(after, tenantsAtOnce);
      const last = tenants.at(-1);
      if (last === undefined) break;
      after = last;
      const wishing = tenants.filter((tenantId) => sweep.wishes.get(tenantId) === 'dedicated');
      const outstanding = [
        ...(await this.#placements.outstanding(tenants, dedicatedChunksMin)),
        ...(await this.#placements.outstanding(wishing, 1)),
      ];
      for (const { tenantId, storeNo } of outstanding) changed += (await this.#settle(sweep, tenantId, storeNo)) ? 1 : 0;
    }
    for (const tenantId of await this.#placements.tenantsWithShard()) await this.#tidy(sweep, tenantId);
    await this.#placements.dropOrphanedShards(sweep.signal);
    return changed;
  }

  /** Searches found an index wanting: nobody uses it any more, in no process. */
  async #writeDownFailures(): Promise<number> {
    const { watch, clock } = this.#parts;
    const failures = watch.failed();
    for (const failed of failures) {
      const { tenantId, storeNo, spaceNo, recall } = failed;
      const store = await this.#unlessAway(() => this.#placements.find(tenantId, storeNo));
      const index = { spaceNo, recall, efSearch: undefined, measuredAtMs: clock.nowMs() };
      if (store !== undefined) await this.#placements.recordIndex(tenantId, store, index);
      watch.settle(failed);
    }
    return failures.length;
  }

  /** Brings one store to its place. True when anything changed. What fails for one tenant does not keep the others waiting. */
  async #settle(sweep: Sweep, tenantId: TenantId, storeNo: number): Promise<boolean> {
    try {
      for (let changes = 0; changes < changesMax; changes++) {
        sweep.signal.throwIfAborted();
        const store = await this.#unlessAway(() => this.#placements.find(tenantId, storeNo));
        if (store === undefined || !(await this.#improve(sweep, tenantId, store))) return changes > 0;
      }
      return true;
    } catch (error) {
      sweep.signal.throwIfAborted();
      const stack = error instanceof Error ? error.name : undefined;
      this.#parts.logger.error(
        { component: 'placement', tenantId, code: stack },
        'a store was not brought to its place; the next sweep goes on',
      );
      return false;
    }
  }

  /** One change towards the store's place. False: it is there. */
  async #improve(sweep: Sweep, tenantId: TenantId, store: PlacedStore): Promise<boolean> {
    if (store.movingTo !== undefined) return this.#finishMove(sweep, tenantId, store);
    const isDedicated = store.shard >= dedicatedShardMin;
    const wanted = this.#wantedPlacement(sweep.wishes.get(tenantId), store);
    if ((wanted === 'dedicated') !== isDedicated) return this.#beginMove(sweep, tenantId, store, wanted);
    return isDedicated && this.#needsIndex(store) ? this.#index(sweep, tenantId, store) : false;
  }

  #wantedPlacement(wish: Placement | undefined, { shard, chunks }: PlacedStore): Placement {
    if (wish !== undefined) return wish === 'dedicated' && chunks === 0 ? 'pooled' : wish;
    const { dedicatedChunksMin } = this.#parts.bounds;
    const isLarge = shard >= dedicatedShardMin ? chunks >= dedicatedChunksMin / 2 : chunks >= dedicatedChunksMin;
    return isLarge ? 'dedicated' : 'pooled';
  }

  async #beginMove({ signal }: Sweep, tenantId: TenantId, store: PlacedStore, to: Placement): Promise<boolean> {
    const { bounds, logger } = this.#parts;
    const toShard = to === 'pooled' ? store.homeShard : await this.#placements.dedicatedShard(tenantId, bounds.dedicatedShardsMax, signal);
    if (toShard === undefined) {
      logger.warn(
        { component: 'placement', tenantId, count: bounds.dedicatedShardsMax },
        'no dedicated shard is left: a large store stays where it is',
      );
      return false;
    }
    await this.#step('shard');
    const begun = await this.#placements.begin(tenantId, { storeNo: store.storeNo, fromShard: store.shard, toShard });
    await this.#step('begun');
    return begun;
  }

  async #finishMove(sweep: Sweep, tenantId: TenantId, store: PlacedStore): Promise<boolean> {
    const { shared, logger } = this.#parts;
    const move: StoreMove = { storeNo: store.storeNo, fromShard: store.shard, toShard: store.movingTo ?? store.shard };
    const database = this.#asTenant(sweep.principalOf(tenantId), shared);
    const mover = { database, tables: sweep.tables, signal: sweep.signal, onBatch: () => this.#step('batch') };
    if (!(await moveRows(mover, move))) return false;
    await this.#step('moved');
    const finished = await this.#placements.finish(tenantId, move, sweep.tables);
    await this.#step('finished');
    if (finished)
      logger.info(
        { component: 'placement', tenantId, count: store.chunks },
        move.toShard >= dedicatedShardMin
          ? 'a large store has a shard of its tenant’s own'
          : 'a store that became small is among the others again',
      );
    return finished;
  }

  /** Also for an index that is there and found too little, once in a while: rows come and go. */
  #needsIndex(store: PlacedStore): boolean {
    const { bounds, clock } = this.#parts;
    if (store.chunks < bounds.dedicatedChunksMin / 2) return false;
    if (store.index === undefined || store.index.spaceNo !== store.spaceNo) return true;
    return store.index.efSearch === undefined && store.index.measuredAtMs + secondTryMs < clock.nowMs();
  }

  async #index({ principalOf, signal }: Sweep, tenantId: TenantId, store: PlacedStore): Promise<boolean> {
    const { shared, owner, bounds, clock, random, logger } = this.#parts;
    const place = vectorPlaceOf(store);
    const isFresh = store.index?.spaceNo === store.spaceNo;
    await buildIndex(owner, place, { memoryMb: bounds.indexBuildMemoryMb, isFresh, signal });
    await this.#step('built');
    const sample = { queries: bounds.recallSampleQueries, recallMin: bounds.recallMin, random, signal };
    const measured = await measureRecall(this.#asTenant(principalOf(tenantId), shared), place, sample);
    if (measured === undefined) return false;
    const isEnough = measured.recall >= bounds.recallMin;
    const index = {
      spaceNo: store.spaceNo,
      recall: measured.recall,
      efSearch: isEnough ? measured.efSearch : undefined,
      measuredAtMs: clock.nowMs(),
    };
    const recorded = await this.#placements.recordIndex(tenantId, store, index);
    await this.#step('measured');
    const facts = { component: 'placement', tenantId, count: store.chunks, recall: measured.recall };
    if (isEnough) logger.info(facts, 'a large store is searched by its index');
    else logger.warn(facts, 'the index of a large store finds too little: the store is searched exactly');
    return recorded;
  }

  /** Drops what no store of the tenant needs any more: single indexes, or the whole shard. */
  async #tidy({ signal }: Sweep, tenantId: TenantId): Promise<void> {
    signal.throwIfAborted();
    const stores = (await this.#unlessAway(() => this.#placements.all(tenantId))) ?? [];
    const here = stores.filter((store) => store.shard >= dedicatedShardMin && store.movingTo === undefined);
    const [first] = here;
    if (first !== undefined) await dropOtherIndexes(this.#parts.owner, first.shard, here.map(vectorPlaceOf));
    else if (await this.#placements.dropDedicatedShard(tenantId, signal)) await this.#step('dropped');
  }

  /** Undefined when the tenant lives in a database of its own, or is on the way. */
  async #unlessAway<T>(work: () => Promise<T>): Promise<T | undefined> {
    try {
      return await work();
    } catch (error) {
      if (error instanceof DatabaseStatementError && error.sqlState.startsWith('BH00')) return undefined;
      throw error;
    }
  }

  /** Turned away, like every writer, while the tenant moves to another database. */
  #asTenant(principal: Principal, shared: Database): TenantDatabase {
    const host: TransactionHost = {
      transaction: (start, work) => shared.transaction({ ...start, asksResidence: true }, work),
      call: (call) => shared.call(call),
    };
    return new TenantDatabase(host, principal);
  }

  async #step(step: PlacementStep): Promise<void> {
    await this.#parts.onStep?.(step);
  }
}

export function vectorPlaceOf({ storeNo, shard, spaceNo, dimensions }: PlacedStore): VectorPlace {
  return { storeNo, shard, spaceNo, dimensions };
}

function placementOf(store: PlacedStore): StorePlacement {
  const isApproximate = store.index?.efSearch !== undefined && store.index.spaceNo === store.spaceNo && store.movingTo === undefined;
  return {
    storeId: store.id,
    chunks: store.chunks,
    placement: store.shard >= dedicatedShardMin ? 'dedicated' : 'pooled',
    isMoving: store.movingTo !== undefined,
    search: isApproximate ? 'approximate' : 'exact',
    recall: store.index?.recall,
    measuredAtMs: store.index?.measuredAtMs,
  };
}
