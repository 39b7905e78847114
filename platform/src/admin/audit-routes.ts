/** `/admin/v1/audits`: begin an isolation audit, see how it goes, read the kept reports. */
import { z } from 'zod';
import { type ProbeFamily, probeFamilies } from '../audit/run-audit.ts';
import { BulkheadError, quoteInput } from '../errors/bulkhead-error.ts';
import type { Exchange, JsonAnswer } from '../gateway/exchange.ts';
import type { OperatorRoute } from '../gateway/route.ts';
import { validateBody } from '../gateway/validate.ts';
import type { AuditRecord } from '../tenancy/audit-records.ts';

/** Port: runs audits in the background. `jobs/` implements it. */
export interface AuditRunner {
  readonly running: RunningAudit | undefined;
  failureOf(id: string): string | undefined;
  start(order: {
    readonly kind: 'full' | 'smoke';
    readonly paced: boolean;
    readonly only: readonly ProbeFamily[] | undefined;
    readonly tenants: readonly string[];
    readonly withCanaryTenants: boolean;
  }): Promise<string>;
  find(id: string): Promise<AuditRecord | undefined>;
  list(page: { readonly limit: number; readonly beforeNumber?: number | undefined }): Promise<readonly Omit<AuditRecord, 'text'>[]>;
}

interface RunningAudit {
  readonly id: string;
  readonly kind: 'full' | 'smoke';
  readonly startedAtMs: number;
  readonly step: string;
}

const tenantsMax = 8;
const orderSchema = z.strictObject({
  kind: z.enum(['full', 'smoke']).default('full'),
  /** Under the share of the capacity that scheduled runs keep to. */
  paced: z.boolean().default(false),
  /** Tenants that somebody uses; each gets a chunk planted, so their operator has to say so. */
  tenants: z.array(z.string().max(64)).max(tenantsMax).default([]),
  consent: z.boolean().default(false),
  /** Families of probes; absent: all. */
  only: z.array(z.enum(probeFamilies)).min(1).max(probeFamilies.length).optional(),
  canary_tenants: z.boolean().default(true),
});

const base = '/admin/v1/audits';

export interface AuditRouteParts {
  readonly audits: AuditRunner;
}

export function auditRoutes(parts: AuditRouteParts): readonly OperatorRoute[] {
  const common = { auth: 'operator', spends: false } as const;
  return [
    { ...common, method: 'POST', path: base, body: 'optional-json', handle: (exchange) => startAudit(parts.audits, exchange) },
    { ...common, method: 'GET', path: base, body: 'none', handle: (exchange) => listAudits(parts, exchange) },
    { ...common, method: 'GET', path: `${base}/:auditId`, body: 'none', handle: (exchange) => showAudit(parts.audits, exchange) },
  ];
}

async function startAudit(audits: AuditRunner, exchange: Exchange): Promise<JsonAnswer> {
  const order = validateBody(orderSchema, exchange.body);
  if (order.tenants.length > 0 && !order.consent) {
    throw new BulkheadError('invalid_value', 'a canary chunk is planted in each of these tenants and removed after it; say consent: true', {
      param: 'consent',
    });
  }
  if (!order.canary_tenants && order.tenants.length < 2) {
    throw new BulkheadError('invalid_value', 'without the canary tenants at least two tenants must be named', { param: 'tenants' });
  }
  const { kind, paced, only, tenants, canary_tenants: withCanaryTenants } = order;
  const id = await audits.start({ kind, paced, only, tenants: [...new Set(tenants)], withCanaryTenants });
  return { kind: 'json', status: 202, body: { id, object: 'audit', status: 'running', kind } };
}

async function listAudits({ audits }: AuditRouteParts, { query }: Exchange): Promise<JsonAnswer> {
  const limit = Math.min(Math.max(Number(query.get('limit') ?? 20) || 20, 1), 100);
  const before = Number(query.get('before') ?? Number.NaN);
  const records = await audits.list({ limit: limit + 1, beforeNumber: Number.isSafeInteger(before) ? before : undefined });
  const data = records.slice(0, limit).map(recordShape);
  const { running } = audits;
  return {
    kind: 'json',
    status: 200,
    body: {
      object: 'list',
      data,
      has_more: records.length > limit,
      running: running === undefined ? null : runningShape(running),
    },
  };
}

/** A kept report is sent byte for byte: its signature is over them. */
async function showAudit(audits: AuditRunner, { params }: Exchange): Promise<JsonAnswer> {
  const id = params['auditId'] ?? '';
  const { running } = audits;
  // Its report may be kept already; it runs until the next one may begin.
  if (running?.id === id) return { kind: 'json', status: 200, body: runningShape(running) };
  const record = await audits.find(id);
  if (record !== undefined) return { kind: 'json', status: 200, body: Buffer.from(record.text) };
  const reason = audits.failureOf(id);
  if (reason !== undefined) return { kind: 'json', status: 200, body: { id, object: 'audit', status: 'failed', reason } };
  throw new BulkheadError('not_found', `there is no audit ${quoteInput(id)}`);
}

function recordShape({ number, id, kind, verdict, startedAtMs, head }: Omit<AuditRecord, 'text'>) {
  return { id, object: 'audit', number, kind, verdict, started_at: Math.floor(startedAtMs / 1_000), chain_head: head };
}

function runningShape({ id, kind, startedAtMs, step }: RunningAudit) {
  return { id, object: 'audit', status: 'running', kind, started_at: Math.floor(startedAtMs / 1_000), step };
}
