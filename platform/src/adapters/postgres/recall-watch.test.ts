import { describe, expect, it } from 'vitest';
import { parseTenantId, type TenantId } from '../../primitives/ids.ts';
import { silentLogger } from '../../telemetry/logger.ts';
import { RecallWatch } from './recall-watch.ts';

const acme = { tenantId: parseTenantId('acme') as TenantId, storeNo: 1, spaceNo: 1 };
const globex = { ...acme, tenantId: parseTenantId('globex') as TenantId };

function watchWith(recall: number, answers: number): { readonly watch: RecallWatch; readonly warnings: string[] } {
  const warnings: string[] = [];
  const watch = new RecallWatch(0.98, { ...silentLogger, warn: (_, message) => warnings.push(message) });
  for (let count = 0; count < answers; count++) watch.note(acme, recall);
  return { watch, warnings };
}

describe('the watch over approximate indexes', () => {
  it('trusts an index until 64 answers have been compared, and not with the 64th when they found too little', () => {
    expect(watchWith(0.5, 63).watch.isTrusted(acme)).toBe(true);
    const { watch, warnings } = watchWith(0.5, 64);
    expect(watch.isTrusted(acme)).toBe(false);
    expect(warnings).toHaveLength(1);
    expect(watch.failed()).toEqual([{ ...acme, recall: 0.5 }]);
  });

  it('goes on trusting one that finds enough, and every other tenant’s, store’s and space’s', () => {
    expect(watchWith(0.98, 1_000).watch.failed()).toEqual([]);
    const { watch } = watchWith(0.5, 64);
    for (const other of [globex, { ...acme, storeNo: 2 }, { ...acme, spaceNo: 2 }]) expect(watch.isTrusted(other)).toBe(true);
  });

  it('forgets old answers: an index that decays is found although it was good for long', () => {
    const { watch } = watchWith(1, 10_000);
    let answers = 0;
    while (watch.isTrusted(acme) && answers < 1_000) {
      watch.note(acme, 0.9);
      answers++;
    }
    expect(answers).toBeLessThan(200);
  });

  it('trusts again what is written down: from then on the database says', () => {
    const { watch } = watchWith(0.5, 64);
    watch.settle(acme);
    expect(watch.isTrusted(acme)).toBe(true);
    expect(watch.failed()).toEqual([]);
  });
});
