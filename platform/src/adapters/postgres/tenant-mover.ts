/**
 * Moves a tenant between the shared database and its own, while it is served:
 *
 *   copy what differs, again and again, while the tenant reads and writes
 *   -> close the residence: its writers wait, those inside are waited for
 *   -> copy the last differences, until a whole pass finds none
 *   -> switch: one transaction of the shared database
 *   -> remove what was left behind
 *
 * A crash before the switch is taken back by the next process, a crash after it is carried on. At no moment may writers enter both.
 */
import { sql } from 'kysely';
import { BulkheadError } from '../../errors/bulkhead-error.ts';
import { assert } from '../../primitives/assert.ts';
import type { Clock } from '../../primitives/clock.ts';
import type { TenantId } from '../../primitives/ids.ts';
import type { Logger } from '../../telemetry/logger.ts';
import { OperatorScope } from '../../tenancy/operator-scope.ts';
import type { Principal } from '../../tenancy/principal.ts';
import type { MoveOrder, TenantMove, TenantMover } from '../../tenancy/tenant-move.ts';
import { type Database, TenantDatabase } from './database.ts';
import { type MoveRecords, type MoveTicket, markSwitched } from './move-records.ts';
import type { OpenSilos } from './open-silos.ts';
import { closeResidence, leaveResidence, openResidence } from './residence.ts';
import type { SiloRegister } from './silo-register.ts';
import type { SiloSource } from './silo-source.ts';
import { copyDifferences, countRows, removeAll } from './tenant-copy.ts';
import { type TenantTable, tenantTables } from './tenant-tables.ts';

export interface TenantMoverParts {
  readonly shared: Database;
  readonly source: SiloSource;
  readonly silos: OpenSilos;
  readonly register: SiloRegister;
  readonly records: MoveRecords;
  readonly clock: Clock;
  readonly logger: Logger;
  /** The embedded database belongs to one process: whatever is unfinished at its start was left by a dead one. */
  readonly isOnlyProcess: boolean;
  /** For tests that end the process at a step. */
  readonly onStep?: (step: MoveStep) => void | Promise<void>;
}

export type MoveStep = 'begun' | 'created' | 'copied' | 'closed' | 'equal' | 'left' | 'switched' | 'removed';

/** Passes while the tenant writes; each copies what the one before was too slow for. */
const openPassesMax = 8;
/** With the writers held the second pass finds nothing; more would be a fault. */
const closedPassesMax = 4;
/** So few differences are copied while the writers wait. */
const fewDifferences = 16;

interface RunningMove {
  readonly ticket: MoveTicket;
  readonly tenant: Principal;
  readonly signal: AbortSignal;
}

interface Ends {
  readonly here: TenantDatabase;
  readonly there: TenantDatabase;
  readonly tables: readonly TenantTable[];
}

export class PostgresTenantMover implements TenantMover {
  readonly #parts: TenantMoverParts;

  constructor(parts: TenantMoverParts) {
    this.#parts = parts;
  }

  async move(operator: OperatorScope, tenant: Principal, { destination, signal, onBegun }: MoveOrder): Promise<TenantMove | undefined> {
    assert(OperatorScope.is(operator), 'moving a tenant needs an operator');
    const { records, register } = this.#parts;
    const isSiloed = (await register.find(tenant.tenantId))?.state === 'home';
    if (isSiloed === (destination === 'siloed')) return undefined;
    const ticket = await records.begin(tenant.tenantId, destination);
    onBegun?.();
    try {
      await this.#step('begun');
      await (destination === 'siloed' ? this.#toSilo({ ticket, tenant, signal }) : this.#toShared({ ticket, tenant, signal }));
    } catch (error) {
      await this.#afterFailure(ticket, tenant);
      throw error;
    }
    return records.find(tenant.tenantId);
  }

  find(operator: OperatorScope, tenant: Principal): Promise<TenantMove | undefined> {
    assert(OperatorScope.is(operator), 'moves are the operator’s');
    return this.#parts.records.find(tenant.tenantId);
  }

  async recover(operator: OperatorScope, principalOf: (tenantId: TenantId) => Principal): Promise<void> {
    assert(OperatorScope.is(operator), 'moves are the operator’s');
    const { records, isOnlyProcess, logger } = this.#parts;
    for (const ticket of await records.takeLeft(isOnlyProcess)) {
      const { tenantId, step } = ticket;
      logger.warn({ component: 'silos', tenantId }, step === 'switched' ? 'finishing a move' : 'taking back a move that was cut off');
      await this.#orLeave(ticket, () => this.#settle(ticket, principalOf(tenantId)));
    }
  }

  async #toSilo({ ticket, tenant, signal }: RunningMove): Promise<void> {
    const { shared, source, silos, register, clock } = this.#parts;
    const place = await register.prepare(tenant.tenantId, await source.placeFor(tenant.tenantId));
    await source.create(place);
    silos.admit(place);
    await this.#step('created');
    const here = new TenantDatabase(shared, tenant);
    const report = await silos.use(place, async (silo) => {
      const ends = { here, there: new TenantDatabase(silo, tenant), tables: await tenantTables(shared) };
      return this.#makeEqual(ticket, ends, signal);
    });
    await shared.forDirectory().write(async (db) => {
      const isOurs = await markSwitched(db, ticket, report, clock.nowMs());
      await sql`UPDATE control.silo SET state = 'home' WHERE tenant_id = ${tenant.tenantId}`.execute(db);
      if (!isOurs || !(await leaveResidence(db, ticket))) throw takenBack();
    });
    await this.#step('switched');
    await this.#removeLeft(ticket, tenant);
  }

  async #toShared({ ticket, tenant, signal }: RunningMove): Promise<void> {
    const { shared, silos, register, clock } = this.#parts;
    const place = (await register.find(tenant.tenantId))?.place;
    assert(place !== undefined, 'a siloed tenant is on the register');
    const there = new TenantDatabase(shared, tenant);
    const report = await silos.use(place, async (silo) => {
      const ends = { here: new TenantDatabase(silo, tenant), there, tables: await tenantTables(shared) };
      const counts = await this.#makeEqual(ticket, ends, signal);
      // First nobody may enter the silo any more, then everybody the shared database: never both.
      if (!(await ends.here.write((db) => leaveResidence(db, ticket)))) throw takenBack();
      await this.#step('left');
      return counts;
    });
    await shared.forDirectory().write(async (db) => {
      if (!(await markSwitched(db, ticket, report, clock.nowMs()))) throw takenBack();
      await sql`UPDATE control.silo SET state = 'leaving' WHERE tenant_id = ${tenant.tenantId}`.execute(db);
      await openResidence(db, ticket.tenantId);
    });
    await this.#step('switched');
    await this.#removeLeft(ticket, tenant);
  }

  /** Ends with the tenant's writers held and both sides equal. */
  async #makeEqual(ticket: MoveTicket, { here, there, tables }: Ends, signal: AbortSignal): Promise<TenantMove['report']> {
    const { records } = this.#parts;
    const ends = { from: here, to: there, tables };
    for (let pass = 0; pass < openPassesMax; pass++) {
      await records.hold(ticket);
      if ((await copyDifferences(ends, signal)) <= fewDifferences) break;
    }
    await this.#step('copied');
    await closeResidence(here, ticket);
    await this.#step('closed');
    for (let pass = 0; pass < closedPassesMax; pass++) {
      await records.hold(ticket);
      if ((await copyDifferences(ends, signal)) > 0) continue;
      await this.#step('equal');
      return countRows(there, tables);
    }
    throw new BulkheadError('internal_error', 'the two sides of a move do not become equal');
  }

  /** What the tenant left behind, after the switch. */
  async #removeLeft(ticket: MoveTicket, tenant: Principal): Promise<void> {
    const { shared, register, records } = this.#parts;
    if (ticket.destination === 'siloed') await removeAll(new TenantDatabase(shared, tenant), await tenantTables(shared));
    else await this.#removeSilo(tenant, () => register.remove(tenant.tenantId));
    await this.#step('removed');
    await records.finish(ticket, 'done');
  }

  async #afterFailure(ticket: MoveTicket, tenant: Principal): Promise<void> {
    await this.#orLeave(ticket, async () => {
      const now = await this.#parts.records.find(ticket.tenantId);
      await this.#settle({ ...ticket, step: now?.step ?? 'copying' }, tenant);
    });
  }

  /** One tenant's database that cannot be reached is no reason to serve nobody. */
  async #orLeave(ticket: MoveTicket, end: () => Promise<void>): Promise<void> {
    try {
      await end();
    } catch (error) {
      const code = error instanceof BulkheadError ? error.code : undefined;
      const message = 'a move could not be ended; the next start tries again';
      this.#parts.logger.error({ component: 'silos', tenantId: ticket.tenantId, code }, message);
    }
  }

  /** Carries a move on that has switched, takes any other back. May be repeated. */
  async #settle(ticket: MoveTicket, tenant: Principal): Promise<void> {
    const { shared, silos, register, records } = this.#parts;
    if (ticket.step === 'switched') return this.#removeLeft(ticket, tenant);
    if (ticket.step !== 'copying') return undefined;
    if (ticket.destination === 'siloed') {
      await shared.forDirectory().write((db) => openResidence(db, ticket.tenantId));
      await this.#removeSilo(tenant, () => register.withdraw(tenant.tenantId));
    } else {
      const place = (await register.find(tenant.tenantId))?.place;
      assert(place !== undefined, 'a siloed tenant is on the register');
      await silos.use(place, (silo) => new TenantDatabase(silo, tenant).write((db) => openResidence(db, ticket.tenantId)));
      await removeAll(new TenantDatabase(shared, tenant), await tenantTables(shared));
    }
    await records.finish(ticket, 'rolled_back');
    return undefined;
  }

  /** Nothing to do for one that is not on the register: it was not made, or removed before a crash. */
  async #removeSilo(tenant: Principal, strike: () => Promise<void>): Promise<void> {
    const { shared, source, silos, register } = this.#parts;
    const place = (await register.find(tenant.tenantId))?.place;
    if (place === undefined) return;
    await silos.retire(place);
    await source.destroy(place, async (silo) => removeAll(new TenantDatabase(silo, tenant), await tenantTables(shared)));
    await strike();
  }

  async #step(step: MoveStep): Promise<void> {
    await this.#parts.onStep?.(step);
  }
}

function takenBack(): BulkheadError {
  return new BulkheadError('not_ready', 'This move was taken back.');
}
