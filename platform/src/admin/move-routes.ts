/** `/admin/v1/tenants/{id}/move`: between the shared database and one of the tenant's own. */
import { z } from 'zod';
import { BulkheadError, quoteInput } from '../errors/bulkhead-error.ts';
import type { Exchange, JsonAnswer } from '../gateway/exchange.ts';
import type { OperatorRoute } from '../gateway/route.ts';
import { validateBody } from '../gateway/validate.ts';
import { parseTenantId, type TenantId } from '../primitives/ids.ts';
import type { OperatorScope } from '../tenancy/operator-scope.ts';
import type { Tenant, TenantIsolation } from '../tenancy/tenant.ts';
import type { TenantDirectory } from '../tenancy/tenant-directory.ts';
import type { TenantMove } from '../tenancy/tenant-move.ts';
import { type GiveDatabase, givenDatabaseOf, givenDatabaseSchema } from './given-database.ts';

/** Port: runs moves in the background. `jobs/` implements it. */
export interface MoveRunner {
  readonly isFull: boolean;
  isMoving(tenantId: TenantId): boolean;
  start(operator: OperatorScope, tenantId: TenantId, destination: TenantIsolation): Promise<void>;
  find(operator: OperatorScope, tenantId: TenantId): Promise<TenantMove | undefined>;
}

export interface MoveRouteParts {
  readonly operator: OperatorScope;
  readonly registry: Pick<TenantDirectory, 'find'>;
  readonly moves: MoveRunner;
  readonly giveDatabase: GiveDatabase;
}

const moveSchema = z.strictObject({ to: z.enum(['pooled', 'siloed']), ...givenDatabaseSchema });
const path = '/admin/v1/tenants/:tenantId/move';

export function moveRoutes(parts: MoveRouteParts): readonly OperatorRoute[] {
  const common = { auth: 'operator', spends: false, path } as const;
  return [
    { ...common, method: 'POST', body: 'json', handle: (exchange) => startMove(parts, exchange) },
    { ...common, method: 'GET', body: 'none', handle: (exchange) => showMove(parts, exchange) },
  ];
}

async function startMove({ operator, registry, moves, giveDatabase }: MoveRouteParts, exchange: Exchange): Promise<JsonAnswer> {
  const body = validateBody(moveSchema, exchange.body);
  const { to } = body;
  const given = givenDatabaseOf(body, to);
  const tenant = await requireTenant(registry, exchange);
  if (tenant.state === 'deleting') throw new BulkheadError('not_ready', 'A tenant that is being erased cannot be moved.');
  if (moves.isMoving(tenant.id)) throw new BulkheadError('not_ready', 'This tenant is being moved already.');
  if (tenant.isolation === to && given !== undefined) {
    throw new BulkheadError('not_ready', 'This tenant has a database of its own: move it to pooled first, then into the one given.');
  }
  if (tenant.isolation === to) return { kind: 'json', status: 200, body: movingShape(tenant, to, 'completed') };
  if (moves.isFull) throw new BulkheadError('capacity_unavailable', 'Other tenants are being moved; try again.', { retryAfterMs: 5_000 });
  if (to === 'siloed') await giveDatabase(tenant.id, given);
  await moves.start(operator, tenant.id, to);
  return { kind: 'json', status: 202, body: movingShape(tenant, to, 'moving') };
}

async function showMove({ operator, registry, moves }: MoveRouteParts, exchange: Exchange): Promise<JsonAnswer> {
  const tenant = await requireTenant(registry, exchange);
  const move = await moves.find(operator, tenant.id);
  if (move === undefined) throw new BulkheadError('not_found', 'This tenant has never been moved.');
  return { kind: 'json', status: 200, body: moveShape(tenant, move, moves.isMoving(tenant.id)) };
}

function movingShape({ id, isolation }: Tenant, to: TenantIsolation, status: 'moving' | 'completed') {
  return { object: 'tenant.move', tenant: id, to, status, isolation, started_at: null, finished_at: null, tables: [] };
}

function moveShape(tenant: Tenant, move: TenantMove, isMoving: boolean) {
  const ended = { copying: 'failed', switched: 'cleaning', done: 'completed', rolled_back: 'failed' } as const;
  return {
    object: 'tenant.move',
    tenant: tenant.id,
    to: move.destination,
    status: isMoving ? 'moving' : ended[move.step],
    isolation: tenant.isolation,
    started_at: Math.floor(move.startedAtMs / 1_000),
    finished_at: move.finishedAtMs === undefined ? null : Math.floor(move.finishedAtMs / 1_000),
    tables: move.report.map(({ table, rows }) => ({ table, rows })),
  };
}

async function requireTenant(registry: Pick<TenantDirectory, 'find'>, exchange: Exchange): Promise<Tenant> {
  const text = exchange.params['tenantId'] ?? '';
  const id = parseTenantId(text);
  const tenant = id === undefined ? undefined : await registry.find(id);
  if (tenant === undefined) throw new BulkheadError('not_found', `there is no tenant ${quoteInput(text)}`);
  return tenant;
}
