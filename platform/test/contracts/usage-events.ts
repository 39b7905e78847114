import type { UsageEvent } from '../../src/metering/usage-event.ts';
import { parseTenantId } from '../../src/primitives/ids.ts';
import { nanoUsd } from '../../src/primitives/money.ts';

/** A usage event with every field set; `changes` replaces some. Equal numbers give equal events. */
export function usageEvent(number: number, changes: Partial<UsageEvent> = {}): UsageEvent {
  const tenantId = parseTenantId('acme');
  if (!tenantId) throw new Error('acme is a tenant id');
  return {
    id: `use_${String(number).padStart(26, '0')}`,
    tenantId,
    keyId: 'key_00000000000000000000000001',
    user: 'user-1',
    requestId: `req_${String(number).padStart(26, '0')}`,
    endpoint: 'chat.completions',
    model: 'gpt-4o',
    upstreamModel: 'gpt-4o-2024-08-06',
    provider: 'openai',
    serviceTier: 'default',
    occurredAtMs: Date.UTC(2026, 0, 1) + number,
    usage: { inputTokens: 10_000, outputTokens: 1_000, cacheReadTokens: 4_000, reasoningTokens: 10 },
    estimated: false,
    outcome: 'completed',
    cost: nanoUsd(30_000_000n),
    costLines: [
      { component: 'input', quantity: 6_000, rateUsd: '0.0000025', rateKey: 'input_cost_per_token', cost: nanoUsd(15_000_000n) },
      {
        component: 'cache_read',
        quantity: 4_000,
        rateUsd: '0.00000125',
        rateKey: 'cache_read_input_token_cost',
        cost: nanoUsd(5_000_000n),
      },
      { component: 'output', quantity: 1_000, rateUsd: '0.00001', rateKey: 'output_cost_per_token', cost: nanoUsd(10_000_000n) },
    ],
    priceVersion: '2026-07-24',
    ...changes,
  };
}
