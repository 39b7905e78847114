/**
 * Where each tenant's rows are: in the shared database, or in one of the tenant's own. A tenant's transaction asks the database it enters whether the
 * tenant lives there (`app.enter_tenant`, no extra round trip), so a move made by another process is noticed at the next transaction and nothing has
 * to be told in advance. The question comes before any work, so being sent on repeats nothing.
 */
import { setTimeout as wait } from 'node:timers/promises';
import type { KeyRing } from '../../encryption/key-ring.ts';
import { BulkheadError } from '../../errors/bulkhead-error.ts';
import { assert } from '../../primitives/assert.ts';
import type { TenantId } from '../../primitives/ids.ts';
import type { Logger } from '../../telemetry/logger.ts';
import { Principal } from '../../tenancy/principal.ts';
import { type Database, type EntryCall, type Sql, TenantDatabase, type TransactionHost, type TransactionStart } from './database.ts';
import { DatabaseStatementError } from './database-error.ts';
import { forwardJobs } from './job-outbox.ts';
import type { OpenSilos } from './open-silos.ts';
import type { SiloRegister } from './silo-register.ts';
import { SiloGone } from './silo-source.ts';

export interface TenantHomesParts {
  readonly shared: Database;
  readonly register: SiloRegister;
  readonly silos: OpenSilos;
  readonly keyRing: KeyRing;
  /** How long a writer waits for the end of a move. */
  readonly moveWaitMaxMs: number;
  readonly logger: Logger;
}

/** More homes in a row than a tenant can have moved through while one transaction began. */
const sentOnMax = 5;
const movePollMs = 25;

export class TenantHomes implements TransactionHost {
  readonly #parts: TenantHomesParts;
  /** Tenants known to have a database of their own; everybody else is looked for in the shared one first. */
  readonly #places = new Map<TenantId, string>();

  private constructor(parts: TenantHomesParts) {
    this.#parts = parts;
  }

  static async open(parts: TenantHomesParts): Promise<TenantHomes> {
    const homes = new TenantHomes(parts);
    for (const { tenantId, place } of await parts.register.homes()) homes.#places.set(tenantId, place);
    return homes;
  }

  forTenant(principal: Principal): TenantDatabase {
    assert(Principal.is(principal), 'tenant data needs a minted principal');
    return new TenantDatabase(this, principal, this.#parts.keyRing);
  }

  /** Throws `database_unavailable` when a move does not end in time. */
  async transaction<T>(start: TransactionStart, work: (sql: Sql) => Promise<T>): Promise<T> {
    const { tenantId } = start;
    assert(tenantId !== undefined, 'only a tenant has a home');
    return this.#atHome(tenantId, () => this.#enter(tenantId, { ...start, asksResidence: true }, work));
  }

  /** As `transaction`; the function asks for the residence itself. */
  async call<Row extends object>(call: EntryCall): Promise<readonly Row[]> {
    return this.#atHome(call.tenantId, async () => {
      const place = this.#places.get(call.tenantId);
      if (place === undefined) return this.#parts.shared.call<Row>(call);
      return this.#parts.silos.use(place, (silo) => silo.call<Row>(call));
    });
  }

  /** Tries where the tenant was last known to live, and then where the answer points. */
  async #atHome<T>(tenantId: TenantId, attempt: () => Promise<T>): Promise<T> {
    const untilMs = performance.now() + this.#parts.moveWaitMaxMs;
    for (let sentOn = 0; ; ) {
      try {
        return await attempt();
      } catch (error) {
        const answer = residenceAnswer(error);
        if (answer === undefined) throw error;
        if (answer === 'gone' && sentOn++ < sentOnMax) await this.#lookUp(tenantId);
        else if (answer === 'moving' && performance.now() < untilMs) await wait(movePollMs);
        else throw new BulkheadError('database_unavailable', 'The tenant is being moved; try again.', { retryAfterMs: 1_000 });
      }
    }
  }

  /** Brings jobs to the queue that a process which died left in the tenants' own databases. One after the other: opening one costs. */
  async forwardLeftJobs(signal: AbortSignal): Promise<void> {
    for (const place of this.#places.values()) {
      if (signal.aborted) return;
      await this.#parts.silos
        .use(place, (silo) => this.#forward(silo))
        .catch((error: unknown) => {
          if (!(error instanceof SiloGone)) throw error;
        });
    }
  }

  async #enter<T>(tenantId: TenantId, start: TransactionStart, work: (sql: Sql) => Promise<T>): Promise<T> {
    const place = this.#places.get(tenantId);
    if (place === undefined) return this.#parts.shared.transaction(start, work);
    return this.#parts.silos.use(place, async (silo) => {
      const result = await silo.transaction(start, work);
      if (!start.readOnly) await this.#forward(silo);
      return result;
    });
  }

  /** The work is committed: a queue that cannot be reached now gets its jobs with the next transaction, or at the next start. */
  async #forward(silo: Database): Promise<void> {
    try {
      await forwardJobs(silo, this.#parts.shared);
    } catch (error) {
      const code = error instanceof BulkheadError ? error.code : undefined;
      this.#parts.logger.warn({ component: 'silos', code }, 'jobs of a tenant database wait to be forwarded');
    }
  }

  async #lookUp(tenantId: TenantId): Promise<void> {
    const record = await this.#parts.register.find(tenantId);
    if (record?.state === 'home') this.#places.set(tenantId, record.place);
    else this.#places.delete(tenantId);
  }
}

function residenceAnswer(error: unknown): 'gone' | 'moving' | undefined {
  if (error instanceof SiloGone) return 'gone';
  if (!(error instanceof DatabaseStatementError)) return undefined;
  if (error.sqlState === 'BH001') return 'gone';
  return error.sqlState === 'BH002' ? 'moving' : undefined;
}
