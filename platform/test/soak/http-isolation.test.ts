import { expect, it } from 'vitest';
import { soakHttp } from './http-isolation.ts';

it('shows nobody a foreign id or word over HTTP, whatever is asked for', { timeout: 240_000 }, async () => {
  const report = await soakHttp({ operations: 400, seed: 20_263 });
  expect(report).toMatchObject({ operations: 400, foreign: 0, wrong: 0, examples: [] });
  expect(report.refused).toBeLessThan(100);
});
