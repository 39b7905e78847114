/** What is reserved over: the shape that published figures of other limiters have, and the whole tree. */
import type { Amounts, LimitScope, LimitScopeName } from '../../src/admission/limit-store.ts';

export interface Shape {
  readonly name: string;
  readonly scopesOf: (tenant: string) => readonly LimitScope[];
}

export const noMoney = { spentNanoUsd: async () => 0 };
export const reserved: Amounts = { inputTokens: 200, outputTokens: 300, costNanoUsd: 100 };
export const actual: Amounts = { inputTokens: 200, outputTokens: 100, costNanoUsd: 50 };

const levels: readonly LimitScopeName[] = ['tenant', 'team', 'key', 'user', 'session'];
const twoRates = { requestsPerMinute: 1e9, tokensPerMinute: 1e12 };
const everyLimit = { ...twoRates, inputTokensPerMinute: 1e12, outputTokensPerMinute: 1e12, concurrency: 10_000 };

/** Key that begins with the tenant's, as in admission. */
function scopesFor(tenant: string, depth: number, more: Pick<LimitScope, 'limits' | 'budget'>): readonly LimitScope[] {
  return levels.slice(0, depth).map((name, level) => ({ name, key: `t:${tenant.length}.${tenant}${':u:1.x'.repeat(level)}`, ...more }));
}

export const threeByTwo: Shape = { name: '3 scopes, 2 rates', scopesOf: (tenant) => scopesFor(tenant, 3, { limits: twoRates }) };

const period = { id: '2026-11', endsAtMs: Date.now() + 86_400_000 };
const budget = { limitNanoUsd: 1e15, isHard: true, isKept: true, period };
export const wholeTree: Shape = {
  name: '5 scopes, all limits and money',
  scopesOf: (tenant) => scopesFor(tenant, 5, { limits: everyLimit, budget }),
};
