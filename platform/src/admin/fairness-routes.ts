/** `/admin/v1/fairness`: what the queue does, and whom it does it to. Once, or as a stream of server-sent events, one a second. */
import { setTimeout as wait } from 'node:timers/promises';
import type { Answer, EventWriter, Exchange } from '../gateway/exchange.ts';
import type { OperatorRoute } from '../gateway/route.ts';
import type { PoolFairness } from '../scheduler/fairness-record.ts';

export interface FairnessRouteParts {
  readonly report: () => readonly PoolFairness[];
}

const everyMs = 1_000;

export function fairnessRoutes({ report }: FairnessRouteParts): readonly OperatorRoute[] {
  const list = () => ({ object: 'list', data: report().map(poolShape), has_more: false });
  return [
    {
      auth: 'operator',
      method: 'GET',
      path: '/admin/v1/fairness',
      body: 'none',
      spends: false,
      handle: async (exchange) =>
        wantsEvents(exchange) ? stream(exchange, () => JSON.stringify(list())) : { kind: 'json', status: 200, body: list() },
    },
  ];
}

/** As a browser's `EventSource` asks, or by name. */
function wantsEvents({ headers, query }: Exchange): boolean {
  return headers.accept?.includes('text/event-stream') === true || query.get('stream') === 'true';
}

/** Until whoever watches leaves, or the longest duration of a stream is over: a watcher asks again then. */
function stream({ signal }: Exchange, next: () => string): Answer {
  return {
    kind: 'events',
    async run(writer: EventWriter) {
      while (!signal.aborted) {
        await writer.send(next(), 'fairness');
        await wait(everyMs, undefined, { signal, ref: false }).catch(() => {});
      }
    },
  };
}

function poolShape(pool: PoolFairness) {
  return {
    pool: pool.poolId,
    capacity: pool.capacity,
    permits: pool.permits,
    elsewhere:
      pool.elsewhere === undefined
        ? null
        : { replicas: pool.elsewhere.replicas, in_flight: pool.elsewhere.running, queued: pool.elsewhere.waiting },
    in_flight: pool.inFlight,
    queued: pool.queued,
    utilisation: rounded(pool.utilisation),
    evenness: rounded(pool.evenness),
    tenants: pool.tenants.map((tenant) => ({
      tenant: tenant.tenantId,
      weight: tenant.weight,
      queued: tenant.queued,
      in_flight: tenant.inFlight,
      entitled_share: rounded(tenant.entitledShare),
      received_share: rounded(tenant.receivedShare),
      served_cost: Math.round(tenant.servedCost),
      lag_cost: Math.round(tenant.lagCost),
      started: tenant.startedRequests,
      wait_ms: { p50: rounded(tenant.waitP50Ms), p99: rounded(tenant.waitP99Ms) },
      shed: tenant.shed,
      waited_for: tenant.waitedFor.map(({ tenantId, ms }) => ({ tenant: tenantId, ms })),
    })),
  };
}

function rounded(value: number | undefined): number | null {
  return value === undefined ? null : Math.round(value * 10_000) / 10_000;
}
