/** Searches from memory: the same answers as through SQL, to the last bit, whatever is written meanwhile and by whom. */
import { Worker } from 'node:worker_threads';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { type ResidentBounds, ResidentPartitions } from '../../src/adapters/postgres/resident-partitions.ts';
import { systemClock } from '../../src/primitives/clock.ts';
import { seededRandom } from '../../src/primitives/random.ts';
import { silentLogger } from '../../src/telemetry/logger.ts';
import type { AttributeFilter, Attributes } from '../../src/tenancy/attributes.ts';
import type { HybridQuery, VectorStoreCabinet } from '../../src/tenancy/capabilities.ts';
import { principalOf, tenantId } from '../support/embedded-database.ts';
import { chunking, fingerprint, Library, question } from './library.ts';

const seed = 20_261_128;
const random = seededRandom(seed);
const pick = <T>(items: readonly T[]): T => items[Math.floor(random.next() * items.length)] as T;
const words = 'rent tenant lease deposit month notice repair roof window landlord heating garden parking key term renew sublet pet'.split(
  ' ',
);
const sentence = (count: number) => Array.from({ length: count }, () => pick(words)).join(' ');
const attributesOf = (index: number): Attributes => ({
  year: 2_000 + (index % 6),
  kind: pick(['lease', 'note', 'Lease']),
  open: index % 2 === 0,
});
const bounds: ResidentBounds = {
  residentBytesMax: 32 * 1_024 * 1_024,
  residentBytesPerTenantMax: 16 * 1_024 * 1_024,
  residentFillsMax: 2,
  residentSearchesQueuedMax: 256,
};

/** Another process over the same database: memory of its own. */
class Replica implements AsyncDisposable {
  readonly residents: ResidentPartitions;
  readonly #library: Library;

  constructor(library: Library, changes: Partial<ResidentBounds> = {}) {
    this.#library = library;
    this.residents = new ResidentPartitions({ bounds: { ...bounds, ...changes }, clock: systemClock, logger: silentLogger });
  }

  stores(tenant: string): VectorStoreCabinet {
    return this.#library.shelves(tenant, 'english', this.residents).vectorStores;
  }

  /** Searches until the answer comes from memory. */
  async warm(tenant: string, storeId: string): Promise<void> {
    const before = this.residents.figures().hits;
    for (let attempt = 0; attempt < 5 && this.residents.figures().hits === before; attempt++) {
      await this.stores(tenant).search(storeId, question('rent'));
      await this.residents.settled();
    }
    expect(this.residents.figures().hits).toBeGreaterThan(before);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.residents[Symbol.asyncDispose]();
  }
}

let library: Library;
beforeAll(async () => {
  library = await Library.open();
});
afterAll(() => library[Symbol.asyncDispose]());

/** Texts of which a third are copies. */
function texts(count: number): string[] {
  const fresh = Array.from({ length: count }, (_, index) => `${sentence(3 + (index % 30))}${index % 8 === 0 ? ` unique${index}` : ''}`);
  return fresh.map((text, index) => (index % 3 === 0 ? (fresh[Math.floor(index / 7)] as string) : text));
}

async function addTo(tenant: string, storeId: string, text: string): Promise<void> {
  const { files, vectorStores } = library.shelves(tenant);
  const { id: fileId } = await files.create({ filename: 'added.txt', purpose: 'assistants', body: Buffer.from(text) });
  await vectorStores.attachFile(storeId, { fileId, attributes: {}, chunking });
  await library.worker.drain();
}

const throughSql = (tenant: string, storeId: string, query: HybridQuery) => library.shelves(tenant).vectorStores.search(storeId, query);

/** Of a request to the thread of the partitions; none of any other message. */
function kindsOf(message: unknown): readonly string[] {
  const { commands = [] } = message as { readonly commands?: readonly { readonly kind: string }[] };
  return commands.map(({ kind }) => kind);
}

function randomFilter(): AttributeFilter | undefined {
  switch (Math.floor(random.next() * 5)) {
    case 0:
      return { type: 'gte', key: 'year', value: 2_000 + Math.floor(random.next() * 7) };
    case 1:
      return { type: 'in', key: 'kind', value: ['lease', 'other'] };
    case 2: {
      const nested = {
        type: 'or',
        filters: [
          { type: 'eq', key: 'open', value: true },
          { type: 'ne', key: 'absent', value: 1 },
        ],
      } as const;
      return { type: 'and', filters: [{ type: 'lt', key: 'kind', value: 'm' }, nested] };
    }
    case 3:
      return { type: 'eq', key: 'year', value: 'none' };
    default:
      return undefined;
  }
}

function randomQuery(): HybridQuery {
  const weights = pick([
    { dense: 1, lexical: 0 },
    { dense: 0.3, lexical: 1 },
    { dense: 0, lexical: 1 },
    { dense: random.next(), lexical: random.next() },
  ]);
  const text = pick([
    sentence(1 + Math.floor(random.next() * 8)),
    `unique${8 * Math.floor(random.next() * 20)} ${sentence(2)}`,
    '',
    '屋顶 roof',
    sentence(90),
  ]);
  return question(text, { weights, limit: 1 + Math.floor(random.next() * 50), filter: randomFilter() });
}

describe('answers from memory', () => {
  test(`are those of SQL, ids and scores, over 300 random questions and filters (seed ${seed})`, async () => {
    await using replica = new Replica(library);
    const storeId = await library.storeOf('acme', texts(220), attributesOf);
    await replica.warm('acme', storeId);
    const before = replica.residents.figures();
    const stores = replica.stores('acme');
    for (let round = 0; round < 300; round++) {
      const query = randomQuery();
      expect(fingerprint(await stores.search(storeId, query)), JSON.stringify(query.filter)).toBe(
        fingerprint(await throughSql('acme', storeId, query)),
      );
    }
    expect(replica.residents.figures().hits - before.hits).toBe(300);
    expect(replica.residents.figures().misses).toBe(before.misses);
  }, 240_000);

  test('show what another replica wrote at the very next search', async () => {
    await using one = new Replica(library);
    await using other = new Replica(library);
    const storeId = await library.storeOf('acme', texts(30), attributesOf);
    for (const replica of [one, other]) await replica.warm('acme', storeId);
    const { files } = library.shelves('acme');
    for (let round = 0; round < 12; round++) {
      const [writer, reader] = round % 2 === 0 ? [one, other] : [other, one];
      const word = `zeppelin${round}`;
      const file = await files.create({ filename: `${word}.txt`, purpose: 'assistants', body: Buffer.from(`${word} over the garden`) });
      await writer.stores('acme').attachFile(storeId, { fileId: file.id, attributes: { round }, chunking });
      await library.worker.drain();
      const found = async (filter?: AttributeFilter) =>
        (await reader.stores('acme').search(storeId, question(word, { filter, limit: 5 })))?.[0]?.fileId;
      const hits = reader.residents.figures().hits;
      expect(await found()).toBe(file.id);
      await writer.stores('acme').updateFileAttributes(storeId, file.id, { round: 'changed' });
      expect(await found({ type: 'eq', key: 'round', value: 'changed' })).toBe(file.id);
      await writer.stores('acme').detachFile(storeId, file.id);
      expect(await found({ type: 'eq', key: 'round', value: 'changed' })).toBeUndefined();
      expect(reader.residents.figures().hits).toBe(hits + 3);
    }
    const query = question('garden roof', { limit: 50 });
    for (const replica of [one, other]) {
      expect(fingerprint(await replica.stores('acme').search(storeId, query))).toBe(fingerprint(await throughSql('acme', storeId, query)));
    }
  }, 120_000);

  test('stay whole while files come, go and change under them, and agree with SQL in the end', async () => {
    await using replica = new Replica(library);
    const storeId = await library.storeOf('acme', texts(40), attributesOf);
    await replica.warm('acme', storeId);
    const { files, vectorStores } = library.shelves('acme');
    const own = new Set((await vectorStores.listFiles(storeId, { limit: 100, order: 'asc' }, {}))?.items.map((item) => item.id));
    let isDone = false;
    const write = async () => {
      for (let round = 0; round < 25; round++) {
        const body = Buffer.from(`${sentence(10)} fresh${round}`);
        const file = await files.create({ filename: `fresh-${round}.txt`, purpose: 'assistants', body });
        own.add(file.id);
        await vectorStores.attachFile(storeId, { fileId: file.id, attributes: { round }, chunking });
        await library.worker.drain();
        if (round % 3 === 0) await vectorStores.updateFileAttributes(storeId, file.id, { round: -round });
        if (round % 2 === 0) await files.delete(file.id);
      }
      isDone = true;
    };
    const ask = async () => {
      while (!isDone) {
        const found = (await replica.stores('acme').search(storeId, randomQuery())) ?? [];
        expect(new Set(found.map((chunk) => chunk.chunkId)).size).toBe(found.length);
        for (const chunk of found) expect(own.has(chunk.fileId) && chunk.ownerId === 'acme').toBe(true);
      }
    };
    await Promise.all([write(), ask(), ask(), ask()]);
    await replica.warm('acme', storeId);
    for (let round = 0; round < 20; round++) {
      const query = randomQuery();
      expect(fingerprint(await replica.stores('acme').search(storeId, query))).toBe(fingerprint(await throughSql('acme', storeId, query)));
    }
  }, 240_000);
});

describe('what is in memory of a tenant', () => {
  test('can be filled by its own database alone', () => {
    const residents = library.residents;
    const foreign = library.db.database.forTenant(principalOf('globex'));
    expect(() => residents.forTenant(principalOf('acme'), foreign)).toThrow('its own tenant');
    expect(() => residents.forTenant({ tenantId: principalOf('acme').tenantId } as never, foreign)).toThrow('principal');
  });

  test('is not there for another: a foreign store is an absent one, before and after', async () => {
    await using replica = new Replica(library);
    const storeId = await library.storeOf('acme', texts(10));
    await replica.warm('acme', storeId);
    const { partitions } = replica.residents.figures();
    for (const id of [storeId, 'vs_none']) {
      for (let attempt = 0; attempt < 3; attempt++) {
        expect(await replica.stores('globex').search(id, question('rent'))).toBeUndefined();
        await replica.residents.settled();
      }
    }
    expect(replica.residents.figures().partitions).toBe(partitions);
  });

  test('goes with the store, and with the tenant', async () => {
    await using replica = new Replica(library);
    const stores = [
      await library.storeOf('acme', texts(10)),
      await library.storeOf('acme', texts(10)),
      await library.storeOf('globex', texts(10)),
    ];
    for (const [index, storeId] of stores.entries()) await replica.warm(index < 2 ? 'acme' : 'globex', storeId);
    await library.shelves('acme').vectorStores.delete(stores[0] as string);
    expect(await replica.stores('acme').search(stores[0] as string, question('rent'))).toBeUndefined();
    expect(replica.residents.figures().partitions).toBe(2);
    replica.residents.drop(tenantId('acme'));
    expect(replica.residents.figures().partitions).toBe(1);
    const hits = replica.residents.figures().hits;
    expect(await replica.stores('acme').search(stores[1] as string, question('rent'))).toHaveLength(10);
    expect(await replica.stores('globex').search(stores[2] as string, question('rent'))).toHaveLength(10);
    expect(replica.residents.figures().hits).toBe(hits + 1);
  });

  test('stays within its bytes: what fits with n is refused or makes room with n - 1', async () => {
    const storeIds = [await library.storeOf('acme', texts(40)), await library.storeOf('globex', texts(40))];
    const tenants = ['acme', 'globex'];
    await using measured = new Replica(library);
    for (const [index, storeId] of storeIds.entries()) await measured.warm(tenants[index] as string, storeId);
    const { bytes } = measured.residents.figures();
    for (const [residentBytesMax, partitions, evictions] of [
      [bytes, 2, 0],
      [bytes - 1, 1, 1],
    ] as const) {
      await using replica = new Replica(library, { residentBytesMax, residentBytesPerTenantMax: bytes });
      for (const [index, storeId] of storeIds.entries()) await replica.warm(tenants[index] as string, storeId);
      expect(replica.residents.figures()).toMatchObject({ partitions, evictions });
      expect(replica.residents.figures().bytes).toBeLessThanOrEqual(residentBytesMax);
    }
    await using small = new Replica(library, { residentBytesPerTenantMax: 1_000 });
    for (let attempt = 0; attempt < 3; attempt++) {
      expect(await small.stores('acme').search(storeIds[0] as string, question('rent'))).toHaveLength(10);
      await small.residents.settled();
    }
    expect(small.residents.figures()).toMatchObject({ partitions: 0, bytes: 0, hits: 0 });
  });
});

describe('the thread', () => {
  test('that ends takes nothing along: searches go through SQL and then come from memory again', async () => {
    await using replica = new Replica(library);
    const storeId = await library.storeOf('acme', texts(20));
    await replica.warm('acme', storeId);
    const query = question('rent roof');
    const expected = fingerprint(await throughSql('acme', storeId, query));
    const running = Array.from({ length: 10 }, () => replica.stores('acme').search(storeId, query));
    await replica.residents.clear();
    for (const found of await Promise.all(running)) expect(fingerprint(found)).toBe(expected);
    await replica.warm('acme', storeId);
    expect(fingerprint(await replica.stores('acme').search(storeId, query))).toBe(expected);
  });

  test('that ends while a store is caught up with leaves the search to SQL', async () => {
    await using replica = new Replica(library);
    const storeId = await library.storeOf('acme', texts(20));
    const query = question('rent roof');
    await replica.warm('acme', storeId);
    await addTo('acme', storeId, 'the rent of another month');
    const post: unknown = Reflect.get(Worker.prototype, 'postMessage');
    const posting = vi.spyOn(Worker.prototype, 'postMessage').mockImplementation(function (this: Worker, request: unknown) {
      Reflect.apply(post as (request: unknown) => void, this, [request]);
      if (kindsOf(request).includes('append')) void replica.residents.clear();
    });
    try {
      expect(fingerprint(await replica.stores('acme').search(storeId, query))).toBe(fingerprint(await throughSql('acme', storeId, query)));
      expect(posting.mock.calls.some(([request]) => kindsOf(request).includes('append'))).toBe(true);
    } finally {
      posting.mockRestore();
    }
  });

  test('answers in one pass those who ask the same store at a time, each as if alone', async () => {
    await using replica = new Replica(library);
    const storeId = await library.storeOf('acme', texts(120), attributesOf);
    await replica.warm('acme', storeId);
    const posting = vi.spyOn(Worker.prototype, 'postMessage');
    try {
      for (let round = 0; round < 4; round++) {
        const asked = Array.from({ length: 12 }, () => ({ ...question(sentence(5)), filter: randomFilter() }));
        const expected: string[] = [];
        for (const query of asked) expected.push(fingerprint(await throughSql('acme', storeId, query)));
        const found = await Promise.all(asked.map((query) => replica.stores('acme').search(storeId, query)));
        expect(found.map(fingerprint)).toEqual(expected);
      }
      const sizes = posting.mock.calls.map(([request]) => kindsOf(request).filter((kind) => kind === 'nearest').length);
      expect(Math.max(...sizes)).toBeGreaterThan(1);
      expect(Math.max(...sizes)).toBeLessThanOrEqual(8);
    } finally {
      posting.mockRestore();
    }
  });

  test('that is too busy leaves searches to SQL', async () => {
    await using replica = new Replica(library, { residentSearchesQueuedMax: 1 });
    const storeId = await library.storeOf('acme', texts(20));
    await replica.warm('acme', storeId);
    const query = question('rent roof');
    const expected = fingerprint(await throughSql('acme', storeId, query));
    const misses = replica.residents.figures().misses;
    const all = await Promise.all(Array.from({ length: 30 }, () => replica.stores('acme').search(storeId, query)));
    for (const found of all) expect(fingerprint(found)).toBe(expected);
    expect(replica.residents.figures().misses).toBeGreaterThan(misses);
  });

  test('is not waited for by a caller who left', async () => {
    await using replica = new Replica(library);
    const storeId = await library.storeOf('acme', texts(20));
    await replica.warm('acme', storeId);
    const gone = AbortSignal.abort(new Error('the client left'));
    await expect(replica.stores('acme').search(storeId, question('rent', { signal: gone }))).rejects.toThrow('the client left');
    const leaving = new AbortController();
    const searches = Array.from({ length: 20 }, () => replica.stores('acme').search(storeId, question('rent', { signal: leaving.signal })));
    leaving.abort(new Error('the client left'));
    for (const outcome of await Promise.allSettled(searches))
      expect(outcome).toMatchObject({ status: 'rejected', reason: { message: 'the client left' } });
    expect(await replica.stores('acme').search(storeId, question('rent'))).toHaveLength(10);
  });
});
