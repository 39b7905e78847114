/** The isolation audit of this process: its way in, its tenants, its view from inside, its records. */
import { readFileSync } from 'node:fs';
import { PostgresAuditRecords } from '../adapters/postgres/audit-reports.ts';
import { PostgresJobDesk, PostgresRowInspector } from '../adapters/postgres/audit-rows.ts';
import type { Database } from '../adapters/postgres/database.ts';
import type { TenantHomes } from '../adapters/postgres/tenant-homes.ts';
import type { TruthReader } from '../audit/audit-ports.ts';
import type { MutationScore } from '../audit/audit-report.ts';
import { CanaryTokens } from '../audit/canary-token.ts';
import { lintCatalogue } from '../audit/catalogue-lint.ts';
import type { AuditParts } from '../audit/run-audit.ts';
import type { Config } from '../config/schema.ts';
import { auditPrincipalOf } from '../jobs/audit-principal.ts';
import { forgeJob } from '../jobs/forge-job.ts';
import { IsolationAudits } from '../jobs/isolation-audits.ts';
import type { Clock } from '../primitives/clock.ts';
import type { IdSource, TenantId } from '../primitives/ids.ts';
import { DocumentSigner } from '../primitives/signed-document.ts';
import { jobKinds } from '../rag/job-queue.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { mintOperatorScope } from '../tenancy/mint-operator-scope.ts';
import type { TenantRegistry } from '../tenancy/tenant-directory.ts';
import { type CanaryIssuers, openAuditGround } from './audit-ground.ts';
import { openSocketTarget } from './audit-target.ts';
import type { AuditedDoor } from './audited-door.ts';
import type { Documents } from './documents.ts';
import type { Identity } from './identity.ts';
import { modelsOf } from './models.ts';
import type { Secrets } from './secrets.ts';

export interface AuditWiring {
  readonly config: Config;
  readonly shared: Database;
  readonly homes: TenantHomes;
  readonly directory: TenantRegistry;
  readonly identity: Identity;
  readonly canaries: CanaryIssuers;
  readonly documents: Pick<Documents, 'envelopes' | 'wake'>;
  readonly settle: (tenantId: TenantId) => Promise<void>;
  readonly secrets: Secrets;
  readonly adminToken: string;
  readonly door: AuditedDoor;
  readonly metrics: Pick<Metrics, 'observeAudit'>;
  readonly clock: Clock;
  readonly ids: IdSource;
  readonly logger: Logger;
}

/** Nothing runs until somebody asks or the schedule is started. */
export function openAudits(wiring: AuditWiring): IsolationAudits {
  const { config, shared, clock, ids, logger, secrets, metrics } = wiring;
  const { reportsMax, leakReportDays } = config.audit;
  const operator = mintOperatorScope('job:audit');
  const records = new PostgresAuditRecords(shared, clock, { reportsMax, leakReportDays });
  return new IsolationAudits({
    operator,
    records,
    open: (run) => openRun(wiring, { operator, records, run }),
    signer: new DocumentSigner(secrets.documentSigning),
    settings: config.audit,
    onReport: (outcome) => metrics.observeAudit(outcome),
    clock,
    ids,
    logger,
  });
}

interface Run {
  readonly operator: ReturnType<typeof mintOperatorScope>;
  readonly records: PostgresAuditRecords;
  readonly run: AsyncDisposableStack;
}

/** What one run holds is given back when it ends. */
async function openRun(wiring: AuditWiring, { operator, records, run }: Run): Promise<AuditParts> {
  const { config, shared, homes, canaries, documents, directory, door, secrets } = wiring;
  const inspector = new PostgresRowInspector(shared, homes);
  const desk = new PostgresJobDesk(shared);
  const target = run.use(openSocketTarget(() => door.baseUrl()));
  canaries.setOpen(true);
  run.defer(() => canaries.setOpen(false));
  const chatModel = chatModelOf(config);
  const models = [config.embedding.model, ...(chatModel === undefined ? [] : [chatModel])];
  const truth: TruthReader = {
    scan: (tenantId) => inspector.scan(auditPrincipalOf(tenantId)),
    tripwires: (attacker, victim) => inspector.tripwires(auditPrincipalOf(attacker), victim),
    lint: () => shared.withClient((client) => lintCatalogue(async (statement) => (await client.query(statement)).rows)),
    schemaHash: () => inspector.schemaHash(),
  };
  return {
    target,
    ground: openAuditGround({
      ...wiring,
      registry: directory,
      issuers: canaries,
      operator,
      records,
      models,
      nowMs: () => wiring.clock.nowMs(),
    }),
    registry: { routes: door.routes, jobKinds: Object.keys(jobKinds), tables: () => inspector.tables() },
    truth,
    forger: {
      forge: (attacker, victim, { envelope, fileId, signal }) =>
        forgeJob({ desk, envelopes: documents.envelopes, wake: () => documents.wake() }, { attacker, victim, envelope, fileId, signal }),
    },
    tokens: new CanaryTokens(secrets.canary),
    chatModel,
    embeddingModel: config.embedding.model,
    build: buildOf(),
    database: `${config.database.url === undefined ? 'embedded ' : ''}${await inspector.describe()}`,
    mutationScore: mutationScore(),
  };
}

/** `audit.chatModel: none` plants no conversation. */
function chatModelOf(config: Config): string | undefined {
  const { chatModel } = config.audit;
  if (chatModel === 'none') return undefined;
  return chatModel ?? modelsOf(config).find(({ kind }) => kind === 'chat')?.id;
}

function buildOf(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { readonly version: string }).version;
}

/** What the audit of the audit found last; written by the test that plants the mutations. */
function mutationScore(): MutationScore | null {
  try {
    return JSON.parse(readFileSync(new URL('../../data/isolation/mutation-score.json', import.meta.url), 'utf8')) as MutationScore;
  } catch {
    // A copy without its data folder audits as well, and says that its score is not known.
    return null;
  }
}
