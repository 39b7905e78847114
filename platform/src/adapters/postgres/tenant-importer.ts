/**
 * Makes a tenant from an archive: reserve the id, suspended and without keys; insert every row as that tenant under row-level security; compare the
 * counts with the manifest; only then let it in. What fails on the way is removed with the id.
 */
import { sql } from 'kysely';
import { BulkheadError, quoteInput } from '../../errors/bulkhead-error.ts';
import { assert } from '../../primitives/assert.ts';
import type { Clock } from '../../primitives/clock.ts';
import type { TenantId } from '../../primitives/ids.ts';
import type { EmbeddingSetting } from '../../rag/reembed.ts';
import type { Logger } from '../../telemetry/logger.ts';
import { OperatorScope } from '../../tenancy/operator-scope.ts';
import type { Principal } from '../../tenancy/principal.ts';
import type { ArchiveManifest, ArchiveSource, TenantImporter } from '../../tenancy/tenant-archive.ts';
import type { Database } from './database.ts';
import { DatabaseStatementError } from './database-error.ts';
import { addEmbeddingModel } from './embedding-register.ts';
import { countRowsOf, deleteRowsOf, erasedTables } from './erasure-surfaces.ts';
import type { OwnerDatabase } from './owner-database.ts';
import { sealRows, type TextRow } from './sealed-rows.ts';
import { insertRows, ordinalsAtOnce, type Row, rowsAtOnce } from './tenant-copy.ts';
import type { TenantHomes } from './tenant-homes.ts';
import { keysStaying, type TenantTable, tenantTables } from './tenant-tables.ts';

export interface TenantImporterParts {
  readonly shared: Database;
  readonly homes: TenantHomes;
  /** Removes what a failed import left, also where tenants cannot. Undefined: the configuration names no owner, and nothing can be imported. */
  readonly owner: OwnerDatabase | undefined;
  readonly clock: Clock;
  readonly logger: Logger;
  /** The embedded database belongs to one process: whatever is unfinished at its start was left by a dead one. */
  readonly isOnlyProcess: boolean;
  /** For tests that end the process. */
  readonly onMember?: (name: string) => void | Promise<void>;
}

const leaseMs = 120_000;

export class PostgresTenantImporter implements TenantImporter {
  readonly #parts: TenantImporterParts;

  constructor(parts: TenantImporterParts) {
    this.#parts = parts;
  }

  async import(
    operator: OperatorScope,
    tenant: Principal,
    reading: { readonly source: ArchiveSource; readonly signal: AbortSignal },
  ): Promise<void> {
    assert(OperatorScope.is(operator), 'importing a tenant needs an operator');
    const { source } = reading;
    const owner = this.#requireOwner();
    await this.#reserve(tenant.tenantId, source.manifest);
    try {
      await this.#insert(tenant, reading);
      await this.#compare(tenant, source.manifest);
      await failUnfinishedFiles(this.#parts.shared, tenant);
      await registerModels(this.#parts.shared, tenant);
      await this.#admit(tenant.tenantId);
    } catch (error) {
      await this.#remove(owner, tenant.tenantId);
      this.#parts.homes.forTenant(tenant).cipher.forget();
      throw error;
    }
  }

  async recover(operator: OperatorScope, principalOf: (tenantId: TenantId) => Principal): Promise<void> {
    assert(OperatorScope.is(operator), 'imports are the operator’s');
    const { shared, clock, logger, isOnlyProcess, owner } = this.#parts;
    if (owner === undefined) return;
    const { rows } = await shared.forDirectory().read((db) =>
      sql<{ readonly tenant_id: TenantId }>`
        SELECT tenant_id FROM control.tenant_import WHERE ${isOnlyProcess} OR lease_until_ms < ${clock.nowMs()}`.execute(db),
    );
    for (const { tenant_id: tenantId } of rows) {
      logger.warn({ component: 'import', tenantId }, 'removing an import that was cut off');
      await this.#remove(owner, principalOf(tenantId).tenantId);
    }
  }

  #requireOwner(): OwnerDatabase {
    const { owner } = this.#parts;
    if (owner === undefined)
      throw new BulkheadError('not_ready', 'Importing needs database.ownerUrl: a failed import is removed by the owner.');
    return owner;
  }

  async #reserve(tenantId: TenantId, { tenant }: ArchiveManifest): Promise<void> {
    const { shared, clock } = this.#parts;
    try {
      await shared.forDirectory().write(async (db) => {
        await sql`
          INSERT INTO control.tenant (id, name, tier, state, isolation, overrides, created_at_ms)
          VALUES (${tenantId}, ${tenant.name}, ${tenant.tier}, 'suspended', 'pooled', ${JSON.stringify(tenant.overrides)}::jsonb, ${clock.nowMs()})`.execute(
          db,
        );
        await sql`INSERT INTO control.tenant_import (tenant_id, lease_until_ms) VALUES (${tenantId}, ${clock.nowMs() + leaseMs})`.execute(
          db,
        );
      });
    } catch (error) {
      if (!(error instanceof DatabaseStatementError) || error.sqlState !== '23505') throw error;
      throw new BulkheadError('already_exists', `The tenant id ${quoteInput(tenantId)} is taken; ids are never reused.`, { param: 'as' });
    }
  }

  async #insert(tenant: Principal, { source, signal }: { readonly source: ArchiveSource; readonly signal: AbortSignal }): Promise<void> {
    const { shared, homes, onMember } = this.#parts;
    const tables = new Map((await tenantTables(shared)).filter(({ name }) => !keysStaying.has(name)).map((table) => [table.name, table]));
    const database = homes.forTenant(tenant);
    for await (const { name, body } of source.members()) {
      signal.throwIfAborted();
      await onMember?.(name);
      await this.#hold(tenant.tenantId);
      const part = readPart(name, body);
      // The bill of where it comes from.
      if (part.table === 'usage_event') continue;
      const table = tables.get(part.table);
      if (table === undefined) throw invalid(`this version has no table ${quoteInput(part.table)}`);
      const rows = part.rows.map((row) => inOrder(table, part.columns, row));
      const atOnce = table.isPerFile ? ordinalsAtOnce : rowsAtOnce;
      for (let index = 0; index < rows.length; index += atOnce) {
        const sealed = await sealRows(database.cipher, table, rows.slice(index, index + atOnce));
        await insertRows(database, table, sealed.map(named));
      }
    }
  }

  async #compare(tenant: Principal, { rows }: ArchiveManifest): Promise<void> {
    const database = this.#parts.shared.forTenant(tenant);
    for (const [table, count] of Object.entries(rows)) {
      if (table === 'usage_event') continue;
      const found = await database.read((db) => countRowsOf(db, `app.${table}`, tenant.tenantId));
      if (found !== count) throw invalid(`${count} rows of ${table} were announced and ${found} came`);
    }
  }

  async #admit(tenantId: TenantId): Promise<void> {
    await this.#parts.shared.forDirectory().write(async (db) => {
      await sql`DELETE FROM control.tenant_import WHERE tenant_id = ${tenantId}`.execute(db);
      await sql`UPDATE control.tenant SET state = 'active' WHERE id = ${tenantId}`.execute(db);
      await sql`SELECT pg_advisory_xact_lock(7070002)`.execute(db);
      await sql`
        INSERT INTO control.directory_change (kind, tenant_id, subject_id, changed_at_ms)
        VALUES ('tenant', ${tenantId}, NULL, ${this.#parts.clock.nowMs()})`.execute(db);
    });
  }

  async #hold(tenantId: TenantId): Promise<void> {
    const { shared, clock } = this.#parts;
    const { rows } = await shared
      .forDirectory()
      .write((db) =>
        sql`UPDATE control.tenant_import SET lease_until_ms = ${clock.nowMs() + leaseMs} WHERE tenant_id = ${tenantId} RETURNING 1`.execute(
          db,
        ),
      );
    if (rows.length === 0) throw new BulkheadError('not_ready', 'Another process has removed this import.');
  }

  /** Rows first and the id last: while any row is there the id stays taken. */
  async #remove(owner: OwnerDatabase, tenantId: TenantId): Promise<void> {
    for (const table of (await erasedTables(owner)).toReversed()) {
      if (table.name !== 'control.tenant_import') await deleteRowsOf(owner, table, { tenantId, onBatch: async () => {} });
    }
    await this.#parts.shared.forDirectory().write(async (db) => {
      const { rows } = await sql`DELETE FROM control.tenant_import WHERE tenant_id = ${tenantId} RETURNING 1`.execute(db);
      if (rows.length > 0) await sql`DELETE FROM control.tenant WHERE id = ${tenantId}`.execute(db);
    });
  }
}

interface Part {
  readonly table: string;
  readonly columns: readonly string[];
  readonly rows: readonly TextRow[];
}

/** The signature vouches for the content, not for its shape: it may be of another version. */
function readPart(name: string, body: Uint8Array): Part {
  try {
    const [head, ...lines] = Buffer.from(body).toString('utf8').trimEnd().split('\n');
    const { table, columns } = JSON.parse(head ?? '') as { readonly table: string; readonly columns: readonly string[] };
    const rows = lines.map((line) => JSON.parse(line) as (string | null)[]);
    if (typeof table === 'string' && rows.every((row) => Array.isArray(row) && row.length === columns.length))
      return { table, columns, rows };
  } catch {
    // Said below.
  }
  throw invalid(`${quoteInput(name)} is not rows of a table`);
}

function inOrder(table: TenantTable, columns: readonly string[], row: TextRow): TextRow {
  if (columns.length !== table.columns.length) throw invalid(`the table ${table.name} has other columns here`);
  return table.columns.map(({ name }) => {
    const at = columns.indexOf(name);
    if (at < 0) throw invalid(`the table ${table.name} has other columns here`);
    return row[at] ?? null;
  });
}

function named(row: TextRow): Row {
  return Object.fromEntries(row.map((value, index) => [`c${index}`, value]));
}

/** A store may be of a model that nobody here has used: what looks after stores, and the check at the start, have to know of it. */
async function registerModels(shared: Database, tenant: Principal): Promise<void> {
  await shared.forTenant(tenant).write(async (db) => {
    const { rows } = await sql<EmbeddingSetting>`
      SELECT DISTINCT embedding_model AS model, embedding_dimensions AS dimensions FROM app.vector_store`.execute(db);
    for (const setting of rows) await addEmbeddingModel(db, setting);
  });
}

/** Their jobs stayed behind. */
async function failUnfinishedFiles(shared: Database, tenant: Principal): Promise<void> {
  const tables = (await tenantTables(shared)).filter(({ isPerFile }) => isPerFile);
  await shared.forTenant(tenant).write(async (db) => {
    const { rows } = await sql<{ readonly store_no: number; readonly file_no: number }>`
      UPDATE app.vector_store_file SET status = 'failed', draft = NULL, error_code = 'server_error', error_message = 'The file was being indexed when its tenant was exported.'
       WHERE status = 'in_progress' RETURNING store_no, file_no`.execute(db);
    for (const { store_no, file_no } of rows) {
      for (const { name } of tables)
        await sql`DELETE FROM ${sql.table(`app.${name}`)} WHERE store_no = ${store_no} AND file_no = ${file_no}`.execute(db);
    }
  });
}

function invalid(what: string): BulkheadError {
  return new BulkheadError('invalid_archive', `This archive cannot be imported: ${what}.`);
}
