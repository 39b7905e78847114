import { describe, expect, it, vi } from 'vitest';
import { MemoryLimitStore } from '../../src/adapters/memory/limit-store.ts';
import { type Admission, createAdmission, type Demand } from '../../src/admission/admit.ts';
import { createOutputEstimates, estimateInputTokens } from '../../src/admission/estimate.ts';
import { goDuration, rateLimitHeaders } from '../../src/admission/rate-limit-headers.ts';
import { BulkheadError } from '../../src/errors/bulkhead-error.ts';
import { ManualClock } from '../../src/primitives/clock.ts';
import { countTokens } from '../../src/primitives/count-tokens.ts';
import { countingIds, type IdSource } from '../../src/primitives/ids.ts';
import type { TenantCapabilities } from '../../src/tenancy/capabilities.ts';
import { mintPrincipal } from '../../src/tenancy/mint-principal.ts';
import type { LimitPolicy } from '../../src/tenancy/tenant.ts';
import { openTenantScope, type TenantScope } from '../../src/tenancy/tenant-scope.ts';
import { tenantId } from '../support/embedded-database.ts';

function scopeWith(limits: LimitPolicy, keyLimits: LimitPolicy = {}, tenant = 'acme'): TenantScope {
  const principal = mintPrincipal({
    tenantId: tenantId(tenant),
    kind: 'api-key',
    user: 'u',
    keyId: 'k1',
    keyPolicy: { limits: keyLimits },
  });
  const record = {
    id: principal.tenantId,
    name: tenant,
    tier: 'free',
    state: 'active',
    isolation: 'pooled',
    overrides: {},
    createdAtMs: 0,
  } as const;
  return openTenantScope(principal, record, { name: 'free', weight: 1, limits }, { bind: () => ({}) as TenantCapabilities });
}

function openAdmission() {
  const clock = new ManualClock();
  const store = new MemoryLimitStore(clock);
  const admission = withoutMoney(createAdmission({ store, clock, ids: countingIds(), leaseMs: 30_000 }));
  return { clock, store, admission };
}

/** Demands of one user that cost nothing. */
function withoutMoney(admission: Admission) {
  return {
    admit: (demand: Omit<Demand, 'caller' | 'costOf'>) => admission.admit({ caller: { user: 'u' }, costOf: () => 0, ...demand }),
    [Symbol.asyncDispose]: () => admission[Symbol.asyncDispose](),
  };
}

/** Ids of another process. */
function prefixedIds(mark: string): IdSource {
  const ids = countingIds();
  return { next: (prefix) => mark + ids.next(prefix) };
}

const learned = (tokens: number) => ({ tokens, isDemanded: false, tokensMax: 16_384 });
const demanded = (tokens: number) => ({ tokens, isDemanded: true, tokensMax: tokens });
const outputTokens = (tokens: number) => ({ inputTokens: 0, outputTokens: tokens, costNanoUsd: 0 });
const settled = () => new Promise((resolve) => setImmediate(resolve));

async function refusal(work: Promise<unknown>): Promise<BulkheadError> {
  const error: unknown = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(BulkheadError);
  return error as BulkheadError;
}

describe('admission', () => {
  it("batch work leaves a quarter of the tenant's limits to its people", async () => {
    const { admission } = openAdmission();
    const scope = scopeWith({ tokensPerMinute: 1_000 });
    const batch = { scope, workClass: 'batch', inputTokens: 250, output: demanded(0) } as const;
    for (let count = 0; count < 3; count++) await admission.admit(batch);
    expect(await refusal(admission.admit(batch))).toMatchObject({ code: 'rate_limit_exceeded' });
    await admission.admit({ scope, inputTokens: 250, output: demanded(0) });
    expect(await refusal(admission.admit({ scope, inputTokens: 250, output: demanded(0) }))).toMatchObject({ code: 'rate_limit_exceeded' });
  });

  it('lesson 1: N first requests at once admit no more than the limit', async () => {
    const { admission } = openAdmission();
    const scope = scopeWith({ tokensPerMinute: 1_000 });
    const outcomes = await Promise.allSettled(
      Array.from({ length: 32 }, () => admission.admit({ scope, inputTokens: 60, output: demanded(40) })),
    );
    expect(outcomes.filter((outcome) => outcome.status === 'fulfilled')).toHaveLength(10);
  });

  it('lesson 2: reserves the largest of several caps, and an expectation when there is none', () => {
    const estimates = createOutputEstimates();
    const scope = scopeWith({});
    expect(
      estimates.reserve({ scope, body: { model: 'm', max_tokens: 1, max_completion_tokens: 10_000 }, outputTokensMax: 16_384 }),
    ).toEqual({
      tokens: 10_000,
      isDemanded: true,
      tokensMax: 10_000,
    });
    expect(estimates.reserve({ scope, body: { model: 'm', max_tokens: 7, n: 3 }, outputTokensMax: 16_384 })).toEqual({
      tokens: 21,
      isDemanded: true,
      tokensMax: 21,
    });
    expect(estimates.reserve({ scope, body: { model: 'm' }, outputTokensMax: 16_384 })).toMatchObject({ isDemanded: false });
    expect(estimates.reserve({ scope, body: { model: 'm' }, outputTokensMax: 16_384 }).tokens).toBeGreaterThan(100);
  });

  it('lesson 3: a limit smaller than the usual estimate still admits a small request', async () => {
    const { admission } = openAdmission();
    const scope = scopeWith({ tokensPerMinute: 100 });
    const output = createOutputEstimates().reserve({ scope, body: { model: 'm' }, outputTokensMax: 16_384 });
    expect(output.tokens).toBeLessThanOrEqual(25);
    await admission.admit({ scope, inputTokens: 90, output });
  });

  it('lesson 3: but what the client demands beyond the limit is refused once, as too large', async () => {
    const { admission } = openAdmission();
    const error = await refusal(admission.admit({ scope: scopeWith({ tokensPerMinute: 100 }), inputTokens: 90, output: demanded(11) }));
    expect(error).toMatchObject({
      code: 'request_too_large_for_limit',
      rule: { status: 413, shouldRetry: false },
      retryAfterMs: undefined,
    });
  });

  it('lesson 4: aborts, failures and settlements in any mix leave no slot held and the ledger’s tokens charged', async () => {
    const { clock, store, admission } = openAdmission();
    const scope = scopeWith({ tokensPerMinute: 10_000_000, concurrency: 8 });
    let used = 0;
    for (let index = 0; index < 10_000; index++) {
      const reservation = await admission.admit({ scope, inputTokens: 100, output: learned(400) });
      reservation.progress(index % 7);
      const tokens = index % 4 === 0 ? 0 : (index * 37) % 900;
      used += tokens;
      if (tokens === 0) reservation.release();
      else reservation.settle(outputTokens(tokens));
      reservation.release();
      reservation.settle(outputTokens(999_999));
    }
    await settled();
    expect(await store.liveCount()).toBe(0);
    const probe = await admission.admit({ scope, inputTokens: 1, output: learned(0) });
    const tokens = probe.states.find((state) => state.dimension === 'tokens');
    expect(tokens?.remaining).toBe(10_000_000 - used - 1);
    expect(clock.monotonicMs()).toBe(0);
  });

  // Planted: never renewing; renewing without the progress; renewing for ever after the holder was closed.
  it('keeps a long request’s reservation alive, and charges what it reported when its process dies', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    try {
      const { clock, store, admission } = openAdmission();
      const scope = scopeWith({ tokensPerMinute: 600_000, concurrency: 1 });
      const pass = async (ms: number) => {
        clock.advance(ms);
        await vi.advanceTimersByTimeAsync(ms);
      };
      const reservation = await admission.admit({ scope, inputTokens: 100, output: learned(400) });
      for (let step = 0; step < 12; step++) {
        reservation.progress(50_000);
        await pass(10_000);
      }
      expect(await store.liveCount()).toBe(1);
      await refusal(admission.admit({ scope, inputTokens: 1, output: learned(0) }));
      // The process dies: nobody renews or settles any more. Another one reaps.
      await admission[Symbol.asyncDispose]();
      await pass(30_000);
      await using survivor = withoutMoney(createAdmission({ store, clock, ids: prefixedIds('second-'), leaseMs: 30_000 }));
      await pass(10_000);
      expect(await store.liveCount()).toBe(0);
      const next = await survivor.admit({ scope, inputTokens: 1, output: learned(0) });
      // 600,000 tokens were delivered, 500 had been reserved: the rest is owed from the reap on.
      expect(next.states.find((state) => state.dimension === 'tokens')?.remaining).toBeLessThan(10_000);
    } finally {
      vi.useRealTimers();
    }
  });

  it('says which limit bound, whose, how much of it is used and when to come back', async () => {
    const { admission } = openAdmission();
    const scope = scopeWith({ requestsPerMinute: 100 }, { requestsPerMinute: 1 });
    await admission.admit({ scope, inputTokens: 1, output: learned(1) });
    const error = await refusal(admission.admit({ scope, inputTokens: 1, output: learned(1) }));
    expect(error.code).toBe('rate_limit_exceeded');
    expect(error.details).toMatchObject({ limit: 'key.requests', scope: 'key', used: 1, limit_value: 1 });
    expect(error.retryAfterMs).toBe(60_000);
    expect(error.headers).toMatchObject({ 'x-ratelimit-limit-requests': '1', 'x-ratelimit-remaining-requests': '0' });
  });

  it('counts two tenants apart, also when one’s name begins with the other’s', async () => {
    const { admission } = openAdmission();
    const limits = { requestsPerMinute: 1 };
    await admission.admit({ scope: scopeWith(limits, {}, 'acme'), inputTokens: 1, output: learned(1) });
    await admission.admit({ scope: scopeWith(limits, {}, 'acme-2'), inputTokens: 1, output: learned(1) });
    await refusal(admission.admit({ scope: scopeWith(limits, {}, 'acme'), inputTokens: 1, output: learned(1) }));
  });

  it('learns what a tenant’s calls to a model give, apart from other tenants and models', () => {
    const estimates = createOutputEstimates();
    const acme = scopeWith({}, {}, 'acme');
    for (let index = 0; index < 50; index++) estimates.learn(acme, { model: 'm' }, 40);
    expect(estimates.predict(acme, { model: 'm' })).toBe(40);
    expect(estimates.predict(scopeWith({}, {}, 'globex'), { model: 'm' })).not.toBe(40);
    expect(estimates.predict(acme, { model: 'other' })).not.toBe(40);
    expect(estimates.predict(acme, { model: 'm', max_tokens: 10 })).toBe(10);
  });
});

describe('the estimate of a request', () => {
  it.each([
    ['English', 'The quick brown fox jumps over the lazy dog. '.repeat(50)],
    ['code', 'for (let i = 0; i < items.length; i++) { total += items[i].price; }\n'.repeat(50)],
    ['Chinese', '今天的天气很好，我们去公园散步吧。'.repeat(50)],
  ])('is within half and double of the count for %s', (_, text) => {
    const estimate = estimateInputTokens({ messages: [{ role: 'user', content: text }] });
    expect(estimate).toBeGreaterThan(countTokens(text) / 2);
    expect(estimate).toBeLessThan(countTokens(text) * 2.5);
  });

  it('counts tools, schemas, attachments and tool calls', () => {
    const bare = estimateInputTokens({ messages: [{ role: 'user', content: 'x' }] });
    expect(estimateInputTokens({ messages: [{ role: 'user', content: 'x' }], tools: [{ description: 'y'.repeat(700) }] })).toBeGreaterThan(
      bare + 150,
    );
    expect(estimateInputTokens({ messages: [{ role: 'user', content: [{ type: 'image_url', image_url: {} }] }] })).toBeGreaterThan(700);
    const schema = { type: 'json_schema', json_schema: { schema: { description: 'y'.repeat(700) } } };
    expect(estimateInputTokens({ messages: [{ role: 'user', content: 'x' }], response_format: schema })).toBeGreaterThan(bare + 150);
    for (const type of ['input_audio', 'file']) {
      expect(estimateInputTokens({ messages: [{ role: 'user', content: [{ type }] }] })).toBeGreaterThan(700);
    }
    expect(estimateInputTokens({ messages: [{ role: 'assistant', tool_calls: [{ x: 'y'.repeat(700) }] }] })).toBeGreaterThan(bare + 150);
    expect(estimateInputTokens({ input: ['abcd', [1, 2, 3]] })).toBe(5);
  });
});

describe('rate limit headers', () => {
  it.each([
    [0, '0ms'],
    [12, '12ms'],
    [999.4, '999ms'],
    [1_000, '1s'],
    [1_500, '1.5s'],
    [59_000, '59s'],
    [360_000, '6m0s'],
    [3_661_000, '1h1m1s'],
  ])('write %d ms as Go does: %s', (ms, text) => {
    expect(goDuration(ms)).toBe(text);
  });

  it('show the tightest scope of each dimension, as OpenAI does and as structured fields', () => {
    const state = { limit: 10, resetMs: 1_001 } as const;
    const headers = rateLimitHeaders([
      { ...state, scope: 'tenant', dimension: 'requests', remaining: 9 },
      { ...state, scope: 'key', dimension: 'requests', remaining: 2 },
      { ...state, scope: 'tenant', dimension: 'output_tokens', remaining: 8 },
      { ...state, scope: 'tenant', dimension: 'concurrency', remaining: 0 },
      { ...state, scope: 'tenant', dimension: 'budget', remaining: 1 },
    ]);
    expect(headers).toEqual({
      'x-ratelimit-limit-requests': '10',
      'x-ratelimit-remaining-requests': '2',
      'x-ratelimit-reset-requests': '1.001s',
      'ratelimit-policy': '"rpm";q=10;w=60, "otpm";q=10;w=60;qu="tokens", "concurrency";q=10;qu="concurrent-requests"',
      ratelimit: '"rpm";r=2;t=2, "otpm";r=8;t=2, "concurrency";r=0',
    });
  });

  it('are not there where there is no limit', () => {
    expect(rateLimitHeaders([])).toEqual({});
  });
});
