/**
 * Prometheus metrics with bounded cardinality: histograms by model, operation and tier only; per tenant only counters, for at most
 * `tenantsMax` tenants, the rest summed under `__other__` (telemetry-and-billing.md 2.4). Names follow OpenTelemetry's GenAI
 * conventions where there is one. Never a user, key or content as a label.
 */
import { Counter, Gauge, Histogram, Registry } from 'prom-client';

export interface InferenceObservation {
  readonly tenantId: string;
  readonly tier: string;
  readonly model: string;
  readonly operation: string;
  readonly outcome: string;
  readonly inputTokens: number;
  readonly outputTokens: number;
  /** Null when the model has no price. */
  readonly costNanoUsd: bigint | null;
  readonly queueMs: number;
  readonly durationMs: number;
}

export interface AuditObservation {
  readonly leaks: number;
  readonly inconclusive: number;
  readonly finishedAtMs: number;
}

export interface Gauges {
  readonly queued: () => number;
  readonly inFlight: () => number;
  readonly journalPending: () => number;
}

/** Of all tenants together: which store is in memory says who was there. */
export interface ResidentFigures {
  readonly bytes: number;
  readonly partitions: number;
  /** Searches answered from memory, and those that were not. */
  readonly hits: number;
  readonly misses: number;
  readonly fills: number;
  readonly evictions: number;
}

/** One model at one provider. */
export interface DeploymentFigures {
  readonly id: string;
  /** Calls it takes at once, now; 0 while it is paused, broken or closed. */
  readonly permits: number;
  readonly inFlight: number;
  readonly answers: number;
  readonly failures: number;
  readonly refusals: number;
}

export interface Metrics {
  observeInference(observation: InferenceObservation): void;
  observeRefusal(tenantId: string, code: string): void;
  observeHttp(route: string, method: string, status: number): void;
  /** Stored content of `column` did not open under the tenant that asked for it. */
  observeIsolationAlarm(tenantId: string, column: string): void;
  /** What the last isolation audit of this process found; for operators alone. */
  observeAudit(observation: AuditObservation): void;
  watch(gauges: Gauges): void;
  watchResidents(read: () => ResidentFigures): void;
  /** For operators alone: they are the account's, not a tenant's. */
  watchDeployments(read: () => readonly DeploymentFigures[]): void;
  /** Prometheus text format 0.0.4. The series of single tenants are for operators alone: one tenant's traffic is not another's to see. */
  render(audience: 'anybody' | 'operator'): Promise<string>;
}

const otherTenant = '__other__';

/** At most `tenantsMax` tenants get series of their own, first come, for the life of the process. */
export function createMetrics(tenantsMax = 200): Metrics {
  const registry = new Registry();
  const ofTenants = new Registry();
  const instruments = instrumentsOf(registry, ofTenants);
  const series = seriesCache(instruments);
  const tenants = new Set<string>();
  const tenantLabel = (tenantId: string): string => {
    if (tenants.has(tenantId)) return tenantId;
    if (tenants.size >= tenantsMax) {
      instruments.tenantsFolded.inc();
      return otherTenant;
    }
    tenants.add(tenantId);
    return tenantId;
  };
  return {
    observeInference: (observation) => observeInference(instruments, series, { observation, tenant: tenantLabel(observation.tenantId) }),
    observeRefusal: (tenantId, code) => instruments.refusals.inc({ tenant: tenantLabel(tenantId), code }),
    observeHttp: (route, method, status) => instruments.http.inc({ route, method, status }),
    observeIsolationAlarm: (tenantId, column) => instruments.isolationAlarms.inc({ tenant: tenantLabel(tenantId), column }),
    observeAudit: ({ leaks, inconclusive, finishedAtMs }) => {
      instruments.auditLeaks.set(leaks);
      instruments.auditInconclusive.set(inconclusive);
      instruments.auditFinished.set(finishedAtMs / 1_000);
    },
    watch: (gauges) => watchGauges(registry, gauges),
    // What comes into memory and goes tells of single tenants: for operators.
    watchResidents: (read) => watchResidents(ofTenants, read),
    watchDeployments: (read) => watchDeployments(ofTenants, read),
    render: async (audience) => (await registry.metrics()) + (audience === 'operator' ? await ofTenants.metrics() : ''),
  };
}

type Instruments = ReturnType<typeof instrumentsOf>;

function instrumentsOf(registry: Registry, ofTenants: Registry) {
  const registers = [registry];
  const tenantRegisters = [ofTenants];
  const byModel = ['model', 'operation', 'tier'] as const;
  return {
    duration: new Histogram({
      name: 'gen_ai_client_operation_duration_seconds',
      help: 'Duration of a model operation, queue included',
      labelNames: byModel,
      buckets: [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92],
      registers,
    }),
    queueWait: new Histogram({
      name: 'bulkhead_queue_wait_seconds',
      help: 'Wait in the fair queue',
      labelNames: byModel,
      buckets: [0.001, 0.005, 0.02, 0.1, 0.5, 1, 2, 5, 10, 30],
      registers,
    }),
    requests: new Counter({
      name: 'bulkhead_tenant_requests_total',
      help: 'Served operations',
      labelNames: ['tenant', 'outcome'] as const,
      registers: tenantRegisters,
    }),
    tokens: new Counter({
      name: 'bulkhead_tenant_tokens_total',
      help: 'Billed tokens',
      labelNames: ['tenant', 'type'] as const,
      registers: tenantRegisters,
    }),
    cost: new Counter({
      name: 'bulkhead_tenant_cost_usd_total',
      help: 'Billed cost in US dollars',
      labelNames: ['tenant'] as const,
      registers: tenantRegisters,
    }),
    unpriced: new Counter({
      name: 'bulkhead_unpriced_requests_total',
      help: 'Operations of models without a price',
      labelNames: ['model'] as const,
      registers,
    }),
    refusals: new Counter({
      name: 'bulkhead_tenant_refusals_total',
      help: 'Requests refused, by error code',
      labelNames: ['tenant', 'code'] as const,
      registers: tenantRegisters,
    }),
    isolationAlarms: new Counter({
      name: 'bulkhead_isolation_alarms_total',
      help: 'Stored values that did not open under the tenant that asked for them',
      labelNames: ['tenant', 'column'] as const,
      registers: tenantRegisters,
    }),
    http: new Counter({
      name: 'bulkhead_http_requests_total',
      help: 'Answers by route and status',
      labelNames: ['route', 'method', 'status'] as const,
      registers,
    }),
    ...auditInstruments(ofTenants),
    tenantsFolded: new Counter({ name: 'bulkhead_metrics_tenants_folded_total', help: 'Observations counted under __other__', registers }),
  };
}

/** Of the last audit of this process. */
function auditInstruments(ofOperators: Registry) {
  const registers = [ofOperators];
  return {
    auditLeaks: new Gauge({
      name: 'bulkhead_audit_leaks',
      help: 'Leaks found by the last isolation audit; alert above 0',
      registers,
    }),
    auditInconclusive: new Gauge({
      name: 'bulkhead_audit_inconclusive',
      help: 'Probes of the last isolation audit that could not be judged',
      registers,
    }),
    auditFinished: new Gauge({
      name: 'bulkhead_audit_finished_timestamp_seconds',
      help: 'When the last isolation audit ended; 0 before the first',
      registers,
    }),
  };
}

/** Looking a series up by its labels costs more than counting in it, so the series of each model and tenant are looked up once. */
function seriesCache(instruments: Instruments) {
  const byModel = new Map<string, ReturnType<typeof modelSeries>>();
  const byTenant = new Map<string, ReturnType<typeof tenantSeries>>();
  return {
    model({ model, operation, tier }: InferenceObservation) {
      return cached(byModel, `${model} ${operation} ${tier}`, () => modelSeries(instruments, { model, operation, tier }));
    },
    tenant: (tenant: string, outcome: string) => cached(byTenant, `${tenant} ${outcome}`, () => tenantSeries(instruments, tenant, outcome)),
  };
}

function modelSeries(instruments: Instruments, labels: { readonly model: string; readonly operation: string; readonly tier: string }) {
  return { duration: instruments.duration.labels(labels), queueWait: instruments.queueWait.labels(labels) };
}

function tenantSeries(instruments: Instruments, tenant: string, outcome: string) {
  return {
    requests: instruments.requests.labels({ tenant, outcome }),
    input: instruments.tokens.labels({ tenant, type: 'input' }),
    output: instruments.tokens.labels({ tenant, type: 'output' }),
  };
}

function cached<Value>(cache: Map<string, Value>, key: string, make: () => Value): Value {
  const known = cache.get(key);
  if (known !== undefined) return known;
  const value = make();
  cache.set(key, value);
  return value;
}

function observeInference(
  instruments: Instruments,
  series: ReturnType<typeof seriesCache>,
  seen: { observation: InferenceObservation; tenant: string },
): void {
  const { observation, tenant } = seen;
  const ofModel = series.model(observation);
  const ofTenant = series.tenant(tenant, observation.outcome);
  ofModel.duration.observe(observation.durationMs / 1_000);
  ofModel.queueWait.observe(observation.queueMs / 1_000);
  ofTenant.requests.inc();
  ofTenant.input.inc(observation.inputTokens);
  ofTenant.output.inc(observation.outputTokens);
  if (observation.costNanoUsd === null) instruments.unpriced.inc({ model: observation.model });
  else instruments.cost.inc({ tenant }, Number(observation.costNanoUsd) / 1e9);
}

function watchResidents(registry: Registry, read: () => ResidentFigures): void {
  const registers = [registry];
  const gauge = (name: string, help: string, figure: (figures: ResidentFigures) => number) =>
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(figure(read()));
      },
    });
  gauge('bulkhead_resident_bytes', 'Bytes of vector stores in memory', ({ bytes }) => bytes);
  gauge('bulkhead_resident_partitions', 'Vector stores in memory', ({ partitions }) => partitions);
  gauge('bulkhead_resident_hits', 'Searches answered from memory since the start', ({ hits }) => hits);
  gauge('bulkhead_resident_misses', 'Searches left to the database since the start', ({ misses }) => misses);
  gauge('bulkhead_resident_fills', 'Vector stores read into memory since the start', ({ fills }) => fills);
  gauge('bulkhead_resident_evictions', 'Vector stores that made room for others since the start', ({ evictions }) => evictions);
}

function watchDeployments(registry: Registry, read: () => readonly DeploymentFigures[]): void {
  const gauge = (name: string, help: string, figure: (figures: DeploymentFigures) => number) =>
    new Gauge({
      name,
      help,
      labelNames: ['deployment'],
      registers: [registry],
      collect() {
        for (const deployment of read()) this.set({ deployment: deployment.id }, figure(deployment));
      },
    });
  gauge('bulkhead_deployment_permits', 'Calls a deployment takes at once, now', ({ permits }) => permits);
  gauge('bulkhead_deployment_in_flight', 'Calls a deployment runs', ({ inFlight }) => inFlight);
  gauge('bulkhead_deployment_answers', 'Calls a deployment answered since the start', ({ answers }) => answers);
  gauge('bulkhead_deployment_failures', 'Calls that failed at a deployment since the start', ({ failures }) => failures);
  gauge('bulkhead_deployment_refusals', 'Calls a deployment refused for load or quota since the start', ({ refusals }) => refusals);
}

function watchGauges(registry: Registry, gauges: Gauges): void {
  const gauge = (name: string, help: string, read: () => number) =>
    new Gauge({
      name,
      help,
      registers: [registry],
      collect() {
        this.set(read());
      },
    });
  gauge('bulkhead_queue_depth', 'Requests waiting in the fair queue', gauges.queued);
  gauge('bulkhead_in_flight', 'Requests holding a permit', gauges.inFlight);
  gauge('bulkhead_journal_pending_events', 'Usage events not yet in the ledger', gauges.journalPending);
  gauge('process_resident_memory_bytes', 'Resident memory', () => process.memoryUsage.rss());
}
