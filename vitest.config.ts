import { defineConfig } from 'vitest/config';

/** Suites that speak to a database and not to an engine: they run on the embedded one and again on a real server. */
const bothEngines = [
  'platform/test/isolation/{audit,catalogue-lint,database,entry-functions,idempotency}.test.ts',
  'platform/test/at-rest/{rotation,sealed-rows,sealed-columns}.test.ts',
  'platform/test/auth/tenant-registries.test.ts',
  'platform/test/metering/postgres-ledger.test.ts',
  'platform/test/retrieval/{documents,embedding-spaces,ingestion,job-fairness,reembedding,search,non-interference,work-per-search,resident}.test.ts',
  'platform/test/lifecycle/{erasure,export}.test.ts',
  'platform/test/silos/tenant-move.test.ts',
  'platform/test/soak/isolation-soak.test.ts',
];
/** Suites about the server itself. */
const serverOnly = ['platform/test/server/**/*.test.ts'];

export default defineConfig({
  test: {
    projects: [
      { test: { name: 'unit', include: ['platform/src/**/*.test.ts', 'scripts/**/*.test.ts'], testTimeout: 10_000 } },
      {
        test: { name: 'system', include: ['platform/test/**/*.test.ts'], exclude: serverOnly, testTimeout: 120_000, hookTimeout: 180_000 },
      },
      {
        test: {
          name: 'server',
          include: [...bothEngines, ...serverOnly],
          env: { BULKHEAD_TEST_ENGINE: 'server' },
          globalSetup: 'platform/test/support/server-setup.ts',
          testTimeout: 120_000,
          hookTimeout: 180_000,
        },
      },
      {
        // What Valkey holds for replicas, in Redis 7.
        test: {
          name: 'redis',
          include: ['platform/test/server/valkey/{limit-store,permit-exchange,outage}.test.ts'],
          env: { TEST_SHARED_STORE: 'redis' },
          testTimeout: 120_000,
          hookTimeout: 180_000,
        },
      },
    ],
    maxWorkers: 2,
    passWithNoTests: false,
  },
});
