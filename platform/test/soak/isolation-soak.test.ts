/** Invariant T1: no operation of any tenant shows a row of another, and no search returns short. `npm run soak:isolation` is the long form. */
import { describe, expect, it } from 'vitest';
import type { HybridQuery } from '../../src/tenancy/capabilities.ts';
import { soakIsolation } from './isolation-soak.ts';
import type { IsolationWorld, Member } from './isolation-world.ts';

const short = { operations: 3_000, seed: 20_261, tenants: 12 };
const faulty = { operations: 600, seed: 20_262, tenants: 4 };

describe('random operations of tenants with near-duplicates of each other', () => {
  it('show nobody a foreign row and never return short', { timeout: 240_000 }, async () => {
    const report = await soakIsolation(short);
    expect(report).toMatchObject({ operations: short.operations, foreign: 0, short: 0, wrong: 0, examples: [] });
    expect(Object.keys(report.byKind)).toHaveLength(9);
    expect(report.fromMemory).toBeGreaterThan(100);
  });

  it('find a search that ignores the tenant for one store', { timeout: 120_000 }, async () => {
    const searchesOf = (member: Member, world: IsolationWorld) => {
      const wrong = world.members[member.number === 0 ? 1 : member.number] ?? member;
      return { search: (_: string, query: HybridQuery) => wrong.vectorStores.search(wrong.storeId, query) };
    };
    const report = await soakIsolation({ ...faulty, searchesOf });
    expect(report.foreign).toBeGreaterThan(0);
  });

  it('find a policy that lets everybody see one file', { timeout: 120_000 }, async () => {
    const plant = async (world: IsolationWorld) => {
      const [fileId] = world.members[0]?.indexed.keys() ?? [];
      await world.library.truth(`CREATE POLICY planted ON app.file FOR SELECT TO bulkhead_runtime USING (id = '${fileId}')`);
    };
    expect((await soakIsolation({ ...faulty, plant })).foreign).toBeGreaterThan(0);
  });

  it('find a search that leaves a row out', { timeout: 120_000 }, async () => {
    const plant = async (world: IsolationWorld) => {
      await world.library.truth('DELETE FROM app.embedding_384 WHERE tenant_id = $1 AND ordinal = 3', [world.members[0]?.name]);
    };
    expect((await soakIsolation({ ...faulty, plant })).short).toBeGreaterThan(0);
  });
});
