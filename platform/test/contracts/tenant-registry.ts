/** What every TenantRegistry must do: PostgreSQL's and the one in memory pass the same suite. */
import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { BulkheadError } from '../../src/errors/bulkhead-error.ts';
import { ManualClock } from '../../src/primitives/clock.ts';
import { parseTenantId, type TenantId } from '../../src/primitives/ids.ts';
import { mintOperatorScope } from '../../src/tenancy/mint-operator-scope.ts';
import type { OperatorScope } from '../../src/tenancy/operator-scope.ts';
import type { ApiKeyRecord, DirectoryChange, NewTenant, TenantRegistry } from '../../src/tenancy/tenant-directory.ts';

export interface RegistryUnderTest extends AsyncDisposable {
  readonly registry: TenantRegistry;
}

const operator = mintOperatorScope('test');

/** `open` runs once; every test brings tenants of its own, so what is in the registry already does not matter. */
export function describeTenantRegistry(name: string, open: (clock: ManualClock) => Promise<RegistryUnderTest>): void {
  describe(name, () => {
    const clock = new ManualClock();
    let subject: RegistryUnderTest;
    let registry: TenantRegistry;
    beforeAll(async () => {
      subject = await open(clock);
      registry = subject.registry;
    });
    afterAll(() => subject?.[Symbol.asyncDispose]());

    const newTenant = async (changes: Partial<NewTenant> = {}) => {
      const tenant = { id: freshTenantId(), name: 'A tenant', tier: 'free', isolation: 'pooled', overrides: {}, ...changes } as const;
      return registry.create(operator, tenant);
    };
    const newKey = (tenantId: TenantId, changes: Partial<ApiKeyRecord> = {}) => registry.createApiKey(operator, keyOf(tenantId, changes));
    /** What `work` added to the feed, of this tenant. */
    const changesOf = async (tenantId: TenantId, work: () => Promise<unknown>): Promise<readonly Omit<DirectoryChange, 'sequence'>[]> => {
      const before = await registry.latestSequence();
      await work();
      const changes = await registry.changesSince(before);
      return changes
        .filter((change) => change.tenantId === tenantId)
        .map(({ kind, subjectId }) => ({ kind, tenantId, ...(subjectId !== undefined && { subjectId }) }));
    };

    describe('tenants', () => {
      it('are found as they were created, active', async () => {
        const overrides = { weight: 2.5, limits: { requestsPerMinute: 7 }, models: ['a/b:c'] };
        const created = await newTenant({ name: 'Änne’s “Shop”; --', tier: 'pro', overrides });
        expect(created).toEqual({
          id: created.id,
          name: 'Änne’s “Shop”; --',
          tier: 'pro',
          state: 'active',
          isolation: 'pooled',
          overrides,
          createdAtMs: clock.nowMs(),
        });
        expect(await registry.find(created.id)).toEqual(created);
        expect(await registry.find(freshTenantId())).toBeUndefined();
      });

      it('have an id of their own for good', async () => {
        const { id } = await newTenant();
        await expect(newTenant({ id })).rejects.toThrow(BulkheadError);
        await expect(newTenant({ id })).rejects.toMatchObject({ code: 'already_exists', param: 'id' });
        await registry.update(operator, id, { state: 'deleting' });
        await expect(newTenant({ id })).rejects.toMatchObject({ code: 'already_exists' });
      });

      it('change in what is named and in nothing else', async () => {
        const before = await newTenant({ overrides: { weight: 3 } });
        clock.advance(5_000);
        expect(await registry.update(operator, before.id, { state: 'suspended' })).toEqual({ ...before, state: 'suspended' });
        expect(await registry.update(operator, before.id, { name: 'B', tier: 'pro' })).toMatchObject({
          name: 'B',
          tier: 'pro',
          state: 'suspended',
        });
        const after = await registry.update(operator, before.id, { overrides: {} });
        expect(after).toEqual({ ...before, name: 'B', tier: 'pro', state: 'suspended', overrides: {} });
        expect(await registry.find(before.id)).toEqual(after);
        expect(await registry.update(operator, freshTenantId(), { name: 'C' })).toBeUndefined();
      });

      it('are listed page by page, each exactly once', async () => {
        const created = new Set<string>();
        for (let count = 0; count < 7; count++) created.add((await newTenant()).id);
        const seen: string[] = [];
        let after: string | undefined;
        for (let hasMore = true; hasMore; ) {
          const page = await registry.list(operator, { limit: 3, after });
          expect(page.items.length).toBeLessThanOrEqual(3);
          seen.push(...page.items.map(({ id }) => id));
          ({ hasMore } = page);
          after = seen.at(-1);
        }
        expect(new Set(seen).size).toBe(seen.length);
        expect(seen.filter((id) => created.has(id))).toHaveLength(7);
        expect((await registry.list(operator, { limit: seen.length })).hasMore).toBe(false);
        expect((await registry.list(operator, { limit: seen.length - 1 })).hasMore).toBe(true);
      });
    });

    describe('API keys', () => {
      it('are found by their public id with the digest they were created with', async () => {
        const { id } = await newTenant();
        const digest = Uint8Array.from({ length: 32 }, (_, index) => 255 - index);
        const created = await newKey(id, { digest, limits: { concurrency: 3 }, expiresAtMs: clock.nowMs() + 1 });
        const found = await registry.findApiKey(created.id);
        expect({ ...found, digest: [...(found?.digest ?? [])] }).toEqual({
          ...keyOf(id, { id: created.id }),
          digest: [...digest],
          limits: { concurrency: 3 },
          createdAtMs: clock.nowMs(),
          expiresAtMs: clock.nowMs() + 1,
        });
        expect(found?.revokedAtMs).toBeUndefined();
        expect(await registry.findApiKey('00000000')).toBeUndefined();
        for (const hostile of ["' OR 1=1 --", '%', created.id.toUpperCase() === created.id ? `${created.id}x` : created.id.toUpperCase()]) {
          expect(await registry.findApiKey(hostile)).toBeUndefined();
        }
      });

      it('belong to a tenant that is there, under an id that is theirs', async () => {
        const { id } = await newTenant();
        const key = await newKey(id);
        await expect(newKey(freshTenantId())).rejects.toThrow();
        await expect(newKey(id, { id: key.id })).rejects.toThrow();
      });

      it('are listed for their tenant alone, oldest first', async () => {
        const [acme, globex] = [await newTenant(), await newTenant()];
        const first = await newKey(acme.id);
        clock.advance(1);
        await newKey(globex.id);
        const second = await newKey(acme.id);
        expect((await registry.listApiKeys(operator, acme.id)).map(({ id }) => id)).toEqual([first.id, second.id]);
        expect(await registry.listApiKeys(operator, freshTenantId())).toEqual([]);
      });

      it('are revoked once, by the tenant they belong to', async () => {
        const [acme, globex] = [await newTenant(), await newTenant()];
        const key = await newKey(acme.id);
        expect(await registry.revokeApiKey(operator, globex.id, key.id)).toBe(false);
        expect(await registry.revokeApiKey(operator, acme.id, '00000000')).toBe(false);
        expect((await registry.findApiKey(key.id))?.revokedAtMs).toBeUndefined();
        expect(await registry.revokeApiKey(operator, acme.id, key.id)).toBe(true);
        const revokedAtMs = clock.nowMs();
        clock.advance(10);
        expect(await registry.revokeApiKey(operator, acme.id, key.id)).toBe(false);
        expect((await registry.findApiKey(key.id))?.revokedAtMs).toBe(revokedAtMs);
      });
    });

    describe('subjects', () => {
      it('are revoked up to now, alone or with their whole tenant, and for no other tenant', async () => {
        const [acme, globex] = [await newTenant(), await newTenant()];
        expect(await registry.subjectNotBeforeMs(acme.id, 'ada')).toBeUndefined();
        await registry.revokeSubject(operator, acme.id, 'ada');
        const firstMs = clock.nowMs();
        expect(await registry.subjectNotBeforeMs(acme.id, 'ada')).toBe(firstMs);
        expect(await registry.subjectNotBeforeMs(acme.id, 'bob')).toBeUndefined();
        clock.advance(1_000);
        await registry.revokeSubject(operator, acme.id);
        for (const subject of ['ada', 'bob']) expect(await registry.subjectNotBeforeMs(acme.id, subject)).toBe(firstMs + 1_000);
        clock.advance(1_000);
        await registry.revokeSubject(operator, acme.id, 'ada');
        expect(await registry.subjectNotBeforeMs(acme.id, 'ada')).toBe(firstMs + 2_000);
        expect(await registry.subjectNotBeforeMs(acme.id, 'bob')).toBe(firstMs + 1_000);
        expect(await registry.subjectNotBeforeMs(globex.id, 'ada')).toBeUndefined();
      });

      it('keep their names apart, whatever is in them', async () => {
        const { id } = await newTenant();
        await registry.revokeSubject(operator, id, "o'brien %_ \\ 汉");
        expect(await registry.subjectNotBeforeMs(id, "o'brien %_ \\ 汉")).toBe(clock.nowMs());
        for (const other of ["o'brien", "O'BRIEN %_ \\ 汉", "o'brien %_ \\ 汉 "])
          expect(await registry.subjectNotBeforeMs(id, other)).toBeUndefined();
      });
    });

    describe('the change feed', () => {
      it('names every change once it is made, in order', async () => {
        const { id } = await newTenant();
        const keyId = freshKeyId();
        const changes = await changesOf(id, async () => {
          await registry.update(operator, id, { state: 'suspended' });
          await newKey(id, { id: keyId });
          await registry.revokeApiKey(operator, id, keyId);
          await registry.revokeSubject(operator, id, 'ada');
          await registry.revokeSubject(operator, id);
        });
        expect(changes).toEqual([
          { kind: 'tenant', tenantId: id },
          { kind: 'api-key', tenantId: id, subjectId: keyId },
          { kind: 'api-key', tenantId: id, subjectId: keyId },
          { kind: 'subject', tenantId: id, subjectId: 'ada' },
          { kind: 'subject', tenantId: id },
        ]);
      });

      it('says nothing of what did not happen', async () => {
        const { id } = await newTenant();
        const before = await registry.latestSequence();
        await newTenant({ id }).catch(() => {});
        await registry.update(operator, freshTenantId(), { name: 'x' });
        await registry.revokeApiKey(operator, id, '00000000');
        await newKey(freshTenantId()).catch(() => {});
        await registry.revokeSubject(operator, freshTenantId()).catch(() => {});
        expect(await registry.latestSequence()).toBe(before);
        expect(await registry.changesSince(before)).toEqual([]);
      });

      it('grows by one number after another, and is read on from any of them', async () => {
        const { id } = await newTenant();
        const before = await registry.latestSequence();
        await Promise.all(Array.from({ length: 20 }, () => newKey(id)));
        const all = await registry.changesSince(before);
        expect(all).toHaveLength(20);
        const sequences = all.map(({ sequence }) => sequence);
        expect(sequences).toEqual([...new Set(sequences)].sort((left, right) => left - right));
        expect(sequences.at(-1)).toBe(await registry.latestSequence());
        expect(await registry.changesSince(sequences[9] ?? 0)).toEqual(all.slice(10));
      });

      it('is read at most 1,000 at a time', async () => {
        const { id } = await newTenant();
        const before = await registry.latestSequence();
        for (let count = 0; count < 1_001; count++) await registry.revokeSubject(operator, id, 'ada');
        const first = await registry.changesSince(before);
        expect(first).toHaveLength(1_000);
        expect(await registry.changesSince(first.at(-1)?.sequence ?? 0)).toHaveLength(1);
      });
    });

    it('is written and listed by operators alone', async () => {
      const { id } = await newTenant();
      const forged = { actor: 'test' } as unknown as OperatorScope;
      await expect((async () => registry.list(forged, { limit: 1 }))()).rejects.toThrow();
      await expect((async () => registry.update(forged, id, { name: 'x' }))()).rejects.toThrow();
      await expect((async () => registry.revokeSubject(forged, id))()).rejects.toThrow();
      await expect((async () => registry.listApiKeys(forged, id))()).rejects.toThrow();
      await expect((async () => registry.createApiKey(forged, keyOf(id)))()).rejects.toThrow();
    });
  });
}

function freshTenantId(): TenantId {
  const id = parseTenantId(`t-${randomUUID()}`);
  if (id === undefined) throw new Error('it is a tenant id');
  return id;
}

function freshKeyId(): string {
  return randomUUID().slice(0, 8);
}

function keyOf(tenantId: TenantId, changes: Partial<ApiKeyRecord> = {}): Omit<ApiKeyRecord, 'createdAtMs' | 'revokedAtMs'> {
  return {
    id: freshKeyId(),
    tenantId,
    name: 'a key',
    environment: 'live',
    digest: new Uint8Array(32),
    pepperVersion: 1,
    lastFour: 'abcd',
    limits: {},
    ...changes,
  };
}
