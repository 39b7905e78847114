/** What runs when nothing is configured: simulated models that cost nothing and leave this machine alone. */
export const demoDefaults = {
  providers: [
    { id: 'sim', kind: 'simulated', seed: 1, concurrency: 8, timeToFirstTokenMs: 200, tokensPerSecond: 80 },
    { id: 'sim-slow', kind: 'simulated', seed: 2, concurrency: 4, timeToFirstTokenMs: 1_500, tokensPerSecond: 15 },
    { id: 'sim-flaky', kind: 'simulated', seed: 3, concurrency: 8, rateLimitRate: 0.1, errorRate: 0.1, stallRate: 0.02 },
  ],
  models: [
    { id: 'sim-fast', deployments: [{ provider: 'sim', model: 'sim-fast', limits: { concurrency: 8 } }] },
    { id: 'sim-reasoning', deployments: [{ provider: 'sim', model: 'sim-reasoning', limits: { concurrency: 8 } }] },
    { id: 'sim-slow', deployments: [{ provider: 'sim-slow', model: 'sim-slow', limits: { concurrency: 4 } }] },
    { id: 'sim-flaky', deployments: [{ provider: 'sim-flaky', model: 'sim-flaky', limits: { concurrency: 8 } }] },
  ].map((model) => ({ ...model, contextTokens: 32_000, price: { inputUsdPerMillion: 1, outputUsdPerMillion: 4 } })),
};

/** The tenants of demo mode with the tier each shows. */
export const demoTenants = [
  { id: 'acme', name: 'Acme Corporation', tier: 'enterprise' },
  { id: 'globex', name: 'Globex', tier: 'pro' },
  { id: 'initech', name: 'Initech', tier: 'free' },
] as const;
