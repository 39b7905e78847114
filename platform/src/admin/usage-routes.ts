/** `/admin/v1/usage` and `/admin/v1/tenants/{id}/usage`: what was used and what it cost, by tenant, model, key, endpoint and day. */
import { BulkheadError, quoteInput } from '../errors/bulkhead-error.ts';
import type { Exchange, JsonAnswer } from '../gateway/exchange.ts';
import type { OperatorRoute } from '../gateway/route.ts';
import { parseTenantId, type TenantId } from '../primitives/ids.ts';
import type { OperatorScope } from '../tenancy/operator-scope.ts';
import type { UsageDimension, UsageQuery, UsageRow } from '../tenancy/usage.ts';
import { usageShape } from './shapes.ts';

/** Port: sums over every tenant, from the rollups. */
export interface OperatorUsage {
  query(operator: OperatorScope, query: UsageQuery & { readonly tenantId?: TenantId | undefined }): Promise<readonly UsageRow[]>;
}

export interface UsageRouteParts {
  readonly operator: OperatorScope;
  readonly usage: OperatorUsage;
  /** Hands what is journaled to the ledger, so that an answer holds everything acknowledged before the question. */
  readonly flushLedger: () => Promise<void>;
  readonly nowMs: () => number;
}

const dimensions: ReadonlySet<string> = new Set<UsageDimension>(['model', 'key', 'day', 'endpoint']);
const dayMs = 86_400_000;

export function usageRoutes(parts: UsageRouteParts): readonly OperatorRoute[] {
  const route = (path: string, handle: OperatorRoute['handle']): OperatorRoute => ({
    auth: 'operator',
    method: 'GET',
    path,
    body: 'none',
    spends: false,
    handle,
  });
  return [
    route('/admin/v1/usage', (exchange) => answerUsage(parts, exchange, undefined)),
    route('/admin/v1/tenants/:tenantId/usage', (exchange) => answerUsage(parts, exchange, requireTenantId(exchange))),
  ];
}

async function answerUsage(parts: UsageRouteParts, exchange: Exchange, tenantId: TenantId | undefined): Promise<JsonAnswer> {
  const query = usageQueryOf(exchange.query, parts.nowMs());
  await parts.flushLedger();
  const rows = await parts.usage.query(parts.operator, { ...query, tenantId });
  return {
    kind: 'json',
    status: 200,
    body: {
      object: 'list',
      from: query.fromDay,
      until: query.untilDay,
      group_by: ['tenant', ...query.groupBy],
      data: rows.map(usageShape),
      has_more: false,
    },
  };
}

/** `from` (default 30 days ago) and `until` (default tomorrow) are UTC days, the interval half-open; `group_by` takes model, key, day, endpoint. */
export function usageQueryOf(query: URLSearchParams, nowMs: number): UsageQuery {
  const groupBy = query
    .getAll('group_by')
    .flatMap((value) => value.split(','))
    .filter((value) => value !== '' && value !== 'tenant');
  const unknown = groupBy.find((value) => !dimensions.has(value));
  if (unknown !== undefined) {
    throw new BulkheadError('invalid_value', `cannot group by ${quoteInput(unknown)}; use tenant, model, key, day or endpoint`, {
      param: 'group_by',
    });
  }
  return {
    fromDay: dayOf(query.get('from'), 'from') ?? isoDay(nowMs - 30 * dayMs),
    untilDay: dayOf(query.get('until'), 'until') ?? isoDay(nowMs + dayMs),
    groupBy: [...new Set(groupBy)] as UsageDimension[],
  };
}

function dayOf(text: string | null, param: string): string | undefined {
  if (text === null) return undefined;
  const isDay = /^\d{4}-\d{2}-\d{2}$/.test(text) && !Number.isNaN(Date.parse(`${text}T00:00:00Z`));
  if (!isDay) throw new BulkheadError('invalid_value', 'must be a UTC day as YYYY-MM-DD', { param });
  return text;
}

function isoDay(timeMs: number): string {
  return new Date(timeMs).toISOString().slice(0, 10);
}

function requireTenantId(exchange: Exchange): TenantId {
  const text = exchange.params['tenantId'] ?? '';
  const id = parseTenantId(text);
  if (id === undefined) throw new BulkheadError('not_found', `there is no tenant ${quoteInput(text)}`);
  return id;
}
