/**
 * Erases a tenant, in steps that are on record, so that a process that dies is carried on where it stopped:
 *
 *   refuse calls, revoke keys and tokens, wait for what runs
 *   -> plant canaries by the code that stores everything, and see that the search finds every one of them
 *   -> let nobody enter any more; count every surface
 *   -> delete rows in short transactions, every other surface, the tenant's own database
 *   -> write tables, indexes and statistics anew, cut the write-ahead log
 *   -> count again and search again; sign the receipt only when nothing is left and nothing is unknown
 */
import { createHash } from 'node:crypto';
import { setTimeout as wait } from 'node:timers/promises';
import { sql } from 'kysely';
import { BulkheadError } from '../../errors/bulkhead-error.ts';
import { assert } from '../../primitives/assert.ts';
import type { Clock } from '../../primitives/clock.ts';
import type { TenantId } from '../../primitives/ids.ts';
import type { DocumentSigner, SignedDocument } from '../../primitives/signed-document.ts';
import type { Logger } from '../../telemetry/logger.ts';
import { OperatorScope } from '../../tenancy/operator-scope.ts';
import type { Principal } from '../../tenancy/principal.ts';
import type { TenantRegistry } from '../../tenancy/tenant-directory.ts';
import type {
  CanaryPlanter,
  DeletionReceipt,
  ErasureOrder,
  ErasureSurface,
  TenantEraser,
  TenantErasure,
} from '../../tenancy/tenant-erasure.ts';
import { bytesOf, needlesOf } from './erasure-canaries.ts';
import { checkpoint, purge } from './erasure-purge.ts';
import type { ErasureRecords, ErasureTicket } from './erasure-records.ts';
import { type SearchResult, searchDirectory, searchServerFiles } from './erasure-search.ts';
import type { SiloSurface } from './erasure-silo.ts';
import { countRowsOf, deleteRowsOf, dropDedicatedShard, type ErasedTable, erasedTables, shardsOf } from './erasure-surfaces.ts';
import type { OwnerDatabase } from './owner-database.ts';
import type { TenantHomes } from './tenant-homes.ts';

export interface TenantEraserParts {
  /** Undefined: the configuration names no owner, and nothing can be erased. */
  readonly owner: OwnerDatabase | undefined;
  readonly records: ErasureRecords;
  readonly registry: TenantRegistry;
  readonly homes: TenantHomes;
  readonly silo: SiloSurface;
  readonly planter: CanaryPlanter;
  /** Places outside the database. */
  readonly surfaces: readonly ErasureSurface[];
  readonly signer: DocumentSigner;
  /** Everything the embedded database and this process keep on disk. */
  readonly dataDir: string;
  /** Until every process has seen that the tenant is refused, and what ran has ended. */
  readonly drainMs: number;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly isOnlyProcess: boolean;
  /** For tests that end the process at a step. */
  readonly onStep?: (step: EraseStep) => void | Promise<void>;
}

export type EraseStep =
  | 'begun'
  | 'refused'
  | 'planted'
  | 'found'
  | 'closed'
  | 'counted'
  | 'deleting'
  | 'deleted'
  | 'rewriting'
  | 'purged'
  | 'verified'
  | 'done';

const notCovered = [
  'backups, and replicas of the data directory, made earlier',
  'what model providers keep of the prompts they were sent',
  'log lines, which hold ids and counts and no content',
  'usage events in the journal of a process that has not run since the erasure began; it delivers them when it starts',
];

interface Erasing {
  readonly operator: OperatorScope;
  readonly tenant: Principal;
  readonly owner: OwnerDatabase;
  readonly signal: AbortSignal;
}

export class PostgresTenantEraser implements TenantEraser {
  readonly #parts: TenantEraserParts;

  constructor(parts: TenantEraserParts) {
    this.#parts = parts;
  }

  async erase(operator: OperatorScope, tenant: Principal, { signal, onBegun }: ErasureOrder): Promise<SignedDocument<DeletionReceipt>> {
    assert(OperatorScope.is(operator), 'erasing a tenant needs an operator');
    const { records, owner, isOnlyProcess, logger } = this.#parts;
    const { tenantId } = tenant;
    const known = await records.find(tenantId);
    if (known?.receipt !== undefined) return known.receipt;
    if (owner === undefined) {
      throw new BulkheadError('not_ready', 'Erasing needs database.ownerUrl: tables are written anew by the login that owns them.');
    }
    let ticket = await records.begin(tenantId, isOnlyProcess);
    try {
      // Only then: what is written later would be found left over.
      if (ticket.step === 'refusing') await this.#refuseCalls(operator, tenantId);
      onBegun?.();
      await this.#step('begun');
      const erasing = { operator, tenant, owner, signal };
      while (ticket.step !== 'done') {
        signal.throwIfAborted();
        ticket = await this.#advance(erasing, ticket);
      }
    } catch (error) {
      // A shutdown leaves the record as it is: the next start carries on.
      if (!signal.aborted) await records.refuse(ticket, ticket.step === 'purged' ? 'counted' : ticket.step, reasonOf(error));
      logger.error({ component: 'erasure', tenantId, reason: reasonOf(error) }, 'the receipt of an erasure was refused');
      throw error;
    }
    const receipt = (await records.find(tenantId))?.receipt;
    assert(receipt !== undefined, 'what is done has a receipt');
    return receipt;
  }

  find(operator: OperatorScope, tenantId: TenantId): Promise<TenantErasure | undefined> {
    assert(OperatorScope.is(operator), 'erasures are the operator’s');
    return this.#parts.records.find(tenantId);
  }

  receipts(operator: OperatorScope, limit: number): Promise<readonly SignedDocument<DeletionReceipt>[]> {
    assert(OperatorScope.is(operator), 'receipts are the operator’s');
    return this.#parts.records.receipts(limit);
  }

  unfinished(operator: OperatorScope): Promise<readonly TenantId[]> {
    assert(OperatorScope.is(operator), 'erasures are the operator’s');
    return this.#parts.records.unfinished(this.#parts.isOnlyProcess);
  }

  #advance(erasing: Erasing, ticket: ErasureTicket): Promise<ErasureTicket> {
    switch (ticket.step) {
      case 'refusing':
        return this.#plant(erasing, ticket);
      case 'planted':
        return this.#count(erasing, ticket);
      case 'counted':
        return this.#delete(erasing, ticket);
      case 'deleted':
        return this.#purge(erasing, ticket);
      case 'purged':
      case 'done':
        return this.#certify(erasing, ticket);
      default:
        return ticket.step satisfies never;
    }
  }

  /** Every call is refused from here on; may be repeated. */
  async #refuseCalls(operator: OperatorScope, tenantId: TenantId): Promise<void> {
    const { registry } = this.#parts;
    await registry.update(operator, tenantId, { state: 'deleting' });
    await registry.revokeSubject(operator, tenantId);
    for (const key of await registry.listApiKeys(operator, tenantId)) {
      if (key.revokedAtMs === undefined) await registry.revokeApiKey(operator, tenantId, key.id);
    }
  }

  async #plant({ tenant, owner, signal }: Erasing, ticket: ErasureTicket): Promise<ErasureTicket> {
    const { planter, homes, records, silo } = this.#parts;
    await wait(this.#parts.drainMs, undefined, { signal });
    await this.#step('refused');
    const planted = await planter.plant(tenant);
    await this.#step('planted');
    await records.hold(ticket);
    const needles = await homes.forTenant(tenant).read((db) => needlesOf(db, tenant.tenantId, planted));
    await silo.writeOut(tenant);
    // A tenant's own database on a server has files that its shared one cannot name, and is dropped with them.
    const isElsewhere = owner.engine === 'server' && (await silo.isHome(tenant));
    const result = isElsewhere ? undefined : await this.#search(owner, needles.map(bytesOf), signal);
    const found = result === undefined ? needles.map(() => 1) : result.found;
    const unseen = needles.filter((_, index) => (found[index] ?? 0) === 0).map(({ surface }) => surface);
    if (unseen.length > 0) throw incomplete(`the search is blind: it does not find the canaries planted in ${unseen.join(', ')}`);
    await this.#step('found');
    const foundBefore = Object.fromEntries(needles.map(({ surface }, index) => [surface, found[index] ?? 0]));
    return records.advance(ticket, 'planted', { needles, foundBefore, isSearched: result !== undefined });
  }

  async #count({ tenant, owner }: Erasing, ticket: ErasureTicket): Promise<ErasureTicket> {
    const tables = await erasedTables(owner);
    const shards = await shardsOf(owner, tables, tenant.tenantId);
    await this.#close(owner, ticket);
    await this.#step('closed');
    const before = await this.#counts(owner, tables, tenant);
    const next = await this.#parts.records.advance(ticket, 'counted', { before, shards });
    await this.#step('counted');
    return next;
  }

  async #delete({ tenant, owner, signal }: Erasing, ticket: ErasureTicket): Promise<ErasureTicket> {
    const { records, surfaces, silo, homes } = this.#parts;
    const { tenantId } = tenant;
    let heldAtMs = 0;
    const onBatch = async () => {
      signal.throwIfAborted();
      if (performance.now() - heldAtMs < 5_000) return;
      heldAtMs = performance.now();
      await records.hold(ticket);
    };
    await silo.destroy(tenant);
    homes.forTenant(tenant).cipher.forget();
    await this.#step('deleting');
    for (const surface of surfaces) await surface.erase(tenantId);
    const tables = (await erasedTables(owner)).toReversed().filter(({ kept }) => kept === undefined);
    const isTenants = ({ name }: ErasedTable) => name.startsWith('app.');
    for (const table of tables.filter(isTenants)) await deleteRowsOf(owner, table, { tenantId, onBatch });
    await dropDedicatedShard(owner, tenantId);
    for (const table of tables.filter((each) => !isTenants(each))) await deleteRowsOf(owner, table, { tenantId, onBatch });
    const next = await records.advance(ticket, 'deleted');
    await this.#step('deleted');
    return next;
  }

  async #purge({ owner, signal }: Erasing, ticket: ErasureTicket): Promise<ErasureTicket> {
    const { records } = this.#parts;
    await this.#step('rewriting');
    const purged = await purge(owner, ticket.progress.shards, async () => {
      signal.throwIfAborted();
      await records.hold(ticket);
    });
    const next = await records.advance(ticket, 'purged', { purged });
    await this.#step('purged');
    return next;
  }

  async #certify({ tenant, owner, operator, signal }: Erasing, ticket: ErasureTicket): Promise<ErasureTicket> {
    const { records, signer, clock } = this.#parts;
    const { tenantId } = tenant;
    const { progress } = ticket;
    const tables = await erasedTables(owner);
    const after = await this.#counts(owner, tables, tenant);
    const surfaces = surfacesOf(tables, progress.before, after);
    const result = progress.isSearched ? await this.#search(owner, progress.needles.map(bytesOf), signal) : undefined;
    if (progress.isSearched && result === undefined) throw incomplete('the files could be read before and cannot be read now');
    const found = result?.found ?? progress.needles.map(() => 0);
    refuseLeft(
      surfaces,
      progress.needles.map(({ surface }) => surface).filter((_, index) => (found[index] ?? 1) > 0),
      result,
    );
    await this.#step('verified');
    assert(progress.purged !== undefined, 'what is certified was purged');
    const isolation = (await this.#parts.registry.find(tenantId))?.isolation ?? 'pooled';
    assert(OperatorScope.is(operator), 'a receipt is signed for an operator');
    const receipt = signer.sign<DeletionReceipt>('bulkhead.deletion-receipt', {
      version: 1,
      tenant: tenantId,
      isolation,
      startedAt: new Date(ticket.startedAtMs).toISOString(),
      finishedAt: new Date(clock.nowMs()).toISOString(),
      engine: owner.engine,
      surfaces,
      canaries: progress.needles.map((needle, index) => ({
        surface: needle.surface,
        sha256: createHash('sha256').update(bytesOf(needle)).digest('hex'),
        foundBefore: progress.foundBefore[needle.surface] ?? 0,
        foundAfter: found[index] ?? 0,
      })),
      search: { method: result === undefined ? 'rows' : 'files', files: result?.files ?? 0, bytes: result?.bytes ?? 0 },
      ...progress.purged,
      notCovered: owner.engine === 'server' ? [...notCovered, 'the server’s write-ahead log, its archive and its standbys'] : notCovered,
    });
    await records.finish(ticket, receipt);
    await this.#step('done');
    return { ...ticket, step: 'done' };
  }

  /** Every surface's name and how much of the tenant it holds. Rejects when one cannot be told. */
  async #counts(owner: OwnerDatabase, tables: readonly ErasedTable[], tenant: Principal): Promise<Record<string, number>> {
    const { surfaces, silo } = this.#parts;
    const { tenantId } = tenant;
    const counts: Record<string, number> = {};
    for (const { name } of tables) counts[name] = await owner.read(tenantId, (db) => countRowsOf(db, name, tenantId));
    Object.assign(counts, await silo.counts(tenant));
    for (const surface of surfaces) {
      try {
        counts[surface.name] = await surface.count(tenantId);
      } catch {
        throw incomplete(`it cannot be told how much of the tenant is in ${surface.name}`);
      }
    }
    return counts;
  }

  /** Undefined where the files may not be read: then the counts of rows are all there is. */
  async #search(owner: OwnerDatabase, needles: readonly Buffer[], signal: AbortSignal): Promise<SearchResult | undefined> {
    if (owner.engine === 'embedded') {
      await checkpoint(owner);
      return searchDirectory(this.#parts.dataDir, needles, signal);
    }
    return searchServerFiles(owner, needles, signal);
  }

  /** Nobody may enter under this id any more; returns when no writer is inside. */
  async #close(owner: OwnerDatabase, { tenantId, token }: ErasureTicket): Promise<void> {
    await owner.write(tenantId, (db) =>
      sql`
        INSERT INTO app.residence (state, token) VALUES ('gone', ${token})
        ON CONFLICT (tenant_id) DO UPDATE SET state = 'gone', token = excluded.token`.execute(db),
    );
    await owner.write(tenantId, (db) => sql`SELECT pg_advisory_xact_lock(7070003, hashtext(${tenantId}))`.execute(db));
  }

  async #step(step: EraseStep): Promise<void> {
    await this.#parts.onStep?.(step);
  }
}

function surfacesOf(
  tables: readonly ErasedTable[],
  before: Readonly<Record<string, number>>,
  after: Readonly<Record<string, number>>,
): DeletionReceipt['surfaces'] {
  const keptWhy = new Map(tables.map(({ name, kept }) => [name, kept]));
  return Object.keys({ ...before, ...after })
    .toSorted()
    .map((name) => {
      const kept = keptWhy.get(name);
      const counted = { name, before: before[name] ?? Number.NaN, after: after[name] ?? (name.startsWith('silo') ? 0 : Number.NaN) };
      return kept === undefined ? counted : { ...counted, kept };
    });
}

function refuseLeft(surfaces: DeletionReceipt['surfaces'], found: readonly string[], result: SearchResult | undefined): void {
  const unknown = surfaces.filter(({ before, after }) => Number.isNaN(before) || Number.isNaN(after)).map(({ name }) => name);
  if (unknown.length > 0) throw incomplete(`it is not known how much was or is in ${unknown.join(', ')}`);
  const left = surfaces.filter(({ after, kept }) => after > 0 && kept === undefined).map(({ name, after }) => `${after} in ${name}`);
  if (left.length > 0) throw incomplete(`not everything is gone: ${left.join(', ')}`);
  if (found.length === 0) return;
  throw incomplete(
    `bytes of the tenant were found after the erasure, from ${found.join(', ')}, in ${result?.places.join(', ') ?? 'its rows'}`,
  );
}

function incomplete(message: string): BulkheadError {
  return new BulkheadError('erasure_incomplete', message);
}

function reasonOf(error: unknown): string {
  return error instanceof BulkheadError ? error.message : error instanceof Error ? `${error.name}: ${error.message}` : 'unknown';
}
