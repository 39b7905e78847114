import { describe, expect, it } from 'vitest';
import { assert } from '../primitives/assert.ts';
import { ManualClock } from '../primitives/clock.ts';
import { parseTenantId, type TenantId } from '../primitives/ids.ts';
import type { Tenant } from '../tenancy/tenant.ts';
import type { TenantDirectory } from '../tenancy/tenant-directory.ts';
import { DirectoryCache } from './directory-cache.ts';

function acmeId(): TenantId {
  const id = parseTenantId('acme');
  assert(id !== undefined, 'acme is a tenant id');
  return id;
}

function countingDirectory() {
  const state = { reads: 0, tenant: undefined as Tenant | undefined, during: () => {} };
  const directory: TenantDirectory = {
    async find() {
      state.reads++;
      const { tenant } = state;
      state.during();
      return tenant;
    },
    findApiKey: async () => undefined,
    subjectNotBeforeMs: async () => undefined,
    changesSince: async () => [],
    latestSequence: async () => 0,
  };
  return { state, directory };
}

const clock = new ManualClock();
const acme = acmeId();
const tenant: Tenant = { id: acme, name: 'acme', tier: 'free', state: 'active', isolation: 'pooled', overrides: {}, createdAtMs: 0 };
const change = { sequence: 1, kind: 'tenant', tenantId: acme } as const;

describe('the directory cache', () => {
  it('reads a tenant once, and again after it changed', async () => {
    const { state, directory } = countingDirectory();
    const cache = new DirectoryCache(directory, { entriesMax: 10, clock });
    state.tenant = tenant;
    for (let index = 0; index < 5; index++) expect((await cache.find(acme))?.state).toBe('active');
    expect(state.reads).toBe(1);
    state.tenant = { ...tenant, state: 'suspended' };
    cache.apply(change);
    expect((await cache.find(acme))?.state).toBe('suspended');
    cache.forgetAll();
    await cache.find(acme);
    expect(state.reads).toBe(3);
  });

  it('keeps nothing for longer than ten minutes, should a change never reach the feed', async () => {
    const { state, directory } = countingDirectory();
    const cache = new DirectoryCache(directory, { entriesMax: 10, clock });
    state.tenant = tenant;
    await cache.find(acme);
    clock.advance(599_999);
    await cache.find(acme);
    expect(state.reads).toBe(1);
    clock.advance(1);
    await cache.find(acme);
    expect(state.reads).toBe(2);
  });

  it('keeps nothing that is absent', async () => {
    const { state, directory } = countingDirectory();
    const cache = new DirectoryCache(directory, { entriesMax: 10, clock });
    expect(await cache.find(acme)).toBeUndefined();
    state.tenant = tenant;
    expect(await cache.find(acme)).toBeDefined();
  });

  it('keeps nothing that was read while it changed', async () => {
    const { state, directory } = countingDirectory();
    const cache = new DirectoryCache(directory, { entriesMax: 10, clock });
    state.tenant = tenant;
    state.during = () => cache.apply(change);
    await cache.find(acme);
    state.during = () => {};
    state.tenant = { ...tenant, state: 'suspended' };
    expect((await cache.find(acme))?.state).toBe('suspended');
  });
});
