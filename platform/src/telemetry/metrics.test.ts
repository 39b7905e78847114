import { describe, expect, it } from 'vitest';
import { createMetrics, type InferenceObservation } from './metrics.ts';

function observation(tenantId: string): InferenceObservation {
  return {
    tenantId,
    tier: 'pro',
    model: 'sim-fast',
    operation: 'chat.completions',
    outcome: 'completed',
    inputTokens: 10,
    outputTokens: 5,
    costNanoUsd: 30_000n,
    queueMs: 1,
    durationMs: 20,
  };
}

describe('metrics', () => {
  it('counts tokens and cost per tenant', async () => {
    const metrics = createMetrics();
    metrics.observeInference(observation('acme'));
    metrics.observeInference(observation('acme'));
    const text = await metrics.render('operator');
    expect(text).toContain('bulkhead_tenant_tokens_total{tenant="acme",type="input"} 20');
    expect(text).toContain('bulkhead_tenant_cost_usd_total{tenant="acme"} 0.00006');
  });

  it('keeps the number of series bounded under any number of tenants', async () => {
    const metrics = createMetrics(2);
    for (let index = 0; index < 10_000; index++) metrics.observeInference(observation(`tenant-${index}`));
    const text = await metrics.render('operator');
    const tenants = new Set([...text.matchAll(/tenant="([^"]+)"/g)].map((match) => match[1]));
    expect(tenants).toEqual(new Set(['tenant-0', 'tenant-1', '__other__']));
    expect(text).toContain('bulkhead_tenant_requests_total{tenant="__other__",outcome="completed"} 9998');
    expect(text).toContain('bulkhead_metrics_tenants_folded_total 9998');
  });

  it('shows operators alone what providers take', async () => {
    const metrics = createMetrics();
    metrics.watchDeployments(() => [{ id: 'openai/gpt', permits: 0, inFlight: 2, answers: 7, failures: 1, refusals: 3 }]);
    const text = await metrics.render('operator');
    expect(text).toContain('bulkhead_deployment_permits{deployment="openai/gpt"} 0');
    expect(text).toContain('bulkhead_deployment_refusals{deployment="openai/gpt"} 3');
    expect(await metrics.render('anybody')).not.toContain('openai/gpt');
  });

  it('shows operators alone what is resident, and of no tenant by name', async () => {
    const metrics = createMetrics();
    metrics.watchResidents(() => ({ bytes: 4_096, partitions: 2, hits: 7, misses: 1, fills: 3, evictions: 1 }));
    const text = await metrics.render('operator');
    expect(text).toContain('bulkhead_resident_bytes 4096');
    expect(text).toContain('bulkhead_resident_hits 7');
    expect(text).not.toMatch(/bulkhead_resident_\w+\{/);
    expect(await metrics.render('anybody')).not.toContain('bulkhead_resident');
  });

  it('never puts a tenant on a histogram', async () => {
    const metrics = createMetrics();
    metrics.observeInference(observation('acme'));
    const lines = (await metrics.render('operator')).split('\n').filter((line) => line.includes('_bucket'));
    expect(lines.length).toBeGreaterThan(0);
    expect(lines.filter((line) => line.includes('tenant='))).toEqual([]);
  });

  it('flags a model without a price instead of adding 0', async () => {
    const metrics = createMetrics();
    metrics.observeInference({ ...observation('acme'), costNanoUsd: null, model: 'mystery' });
    const text = await metrics.render('operator');
    expect(text).toContain('bulkhead_unpriced_requests_total{model="mystery"} 1');
    expect(text).not.toContain('bulkhead_tenant_cost_usd_total{tenant="acme"}');
  });

  it('shows the series of tenants to operators alone', async () => {
    const metrics = createMetrics();
    metrics.observeInference(observation('acme'));
    metrics.observeRefusal('globex', 'rate_limit_exceeded');
    const open = await metrics.render('anybody');
    expect(open).toContain('gen_ai_client_operation_duration_seconds_count');
    expect(open).not.toMatch(/tenant="|acme|globex/);
    expect(await metrics.render('operator')).toMatch(/tenant="globex"/);
  });

  it('reads gauges when it is asked', async () => {
    const metrics = createMetrics();
    let queued = 3;
    metrics.watch({ queued: () => queued, inFlight: () => 1, journalPending: () => 0 });
    expect(await metrics.render('operator')).toContain('bulkhead_queue_depth 3');
    queued = 4;
    expect(await metrics.render('operator')).toContain('bulkhead_queue_depth 4');
  });
});
