import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    projects: [
      { test: { name: 'unit', include: ['platform/src/**/*.test.ts', 'scripts/**/*.test.ts'], testTimeout: 10_000 } },
      { test: { name: 'system', include: ['platform/test/**/*.test.ts'], testTimeout: 60_000, hookTimeout: 60_000 } },
    ],
    maxWorkers: 2,
    passWithNoTests: false,
  },
});
