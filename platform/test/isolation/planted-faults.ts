/**
 * Faults of the application, each a way in which a gateway has mixed tenants: planted in the modules of a running Bulkhead by the test that mocks them.
 * One is in force at a time, from the moment the canaries are planted until their owners clear up.
 */
import { BulkheadError } from '../../src/errors/bulkhead-error.ts';
import type {
  FileCabinet,
  IdempotencyCabinet,
  ResponseCabinet,
  RetrievedChunk,
  TenantCapabilities,
  VectorStoreCabinet,
} from '../../src/tenancy/capabilities.ts';
import type { Principal } from '../../src/tenancy/principal.ts';
import type { TenantDataSource } from '../../src/tenancy/tenant-scope.ts';

export interface PlantedFault {
  readonly fault: string;
  /** Families that are run; the first of `caughtBy` is in one of them. */
  readonly only: readonly string[];
  readonly kind?: 'full' | 'smoke';
  /** Probes that must find it. */
  readonly caughtBy: readonly string[];
  readonly verdict: 'LEAK' | 'INCONCLUSIVE';
}

const leak = (fault: string, only: readonly string[], caughtBy: readonly string[], kind: 'full' | 'smoke' = 'smoke'): PlantedFault => ({
  fault,
  only,
  kind,
  caughtBy,
  verdict: 'LEAK',
});

export const plantedFaults: readonly PlantedFault[] = [
  leak('a neighbour’s chunk in a search, its owner rewritten', ['search'], ['V1']),
  {
    fault: 'filtered by tenant after ranking over all',
    only: ['search', 'recall'],
    kind: 'full',
    caughtBy: ['V7'],
    verdict: 'INCONCLUSIVE',
  },
  leak('scores from statistics over all tenants', ['search'], ['V8'], 'full'),
  leak('answers of a search kept under the question alone', ['search', 'confusion'], ['V2', 'Q1']),
  leak('one client for every tenant, made for the first', ['routes'], ['F1']),
  leak('a file found by its id alone', ['routes'], ['F1']),
  leak('403 for what another tenant has', ['routes'], ['F1']),
  leak('a list without its filter', ['routes'], ['F2']),
  leak('a cursor of anybody', ['routes'], ['F1']),
  leak('a deletion by id alone', ['routes'], ['F1', 'F3'], 'full'),
  leak('a conversation found by its id alone', ['routes'], ['F1'], 'full'),
  leak('an error that names the foreign file', ['routes'], ['F1']),
  leak('an idempotency key without its tenant', ['confusion'], ['I1']),
  leak('the credential cache keyed by a prefix', ['search', 'credentials'], ['J26']),
  leak('a revocation that the cache does not see', ['credentials'], ['J26'], 'full'),
  leak('the tenant claim of any issuer trusted', ['credentials'], ['J9']),
  leak('a token whose signature is not checked', ['credentials'], ['J5', 'J11'], 'full'),
  leak('a tenant chosen by a header', ['credentials'], ['J29']),
  leak('operator routes open to any credential', ['doors'], ['G2']),
  leak('tenants named in the open metrics', ['doors'], ['G3']),
  leak('a job believed without its envelope', ['jobs'], ['B1'], 'full'),
  leak('limits counted for all tenants together', ['limits'], ['U2'], 'full'),
  { fault: 'a route without a probe', only: ['routes'], caughtBy: ['G1'], verdict: 'INCONCLUSIVE' },
  { fault: 'a job kind without a probe', only: ['jobs'], caughtBy: ['G1'], verdict: 'INCONCLUSIVE' },
];

/** What is in force now, and what faulty code remembers across tenants. */
export class FaultState {
  armed: string | undefined;
  inForce: string | undefined;
  readonly tenants = new Map<string, TenantCapabilities>();
  readonly fileNames = new Map<string, string>();
  readonly answers = new Map<string, readonly RetrievedChunk[] | undefined>();
  readonly firstByKey = new Map<string, IdempotencyCabinet>();

  is(fault: string): boolean {
    return this.inForce === fault;
  }
}

/** Capabilities that do as they should until a fault is in force. */
export function faultySource(source: TenantDataSource, state: FaultState): TenantDataSource {
  return {
    bind(principal: Principal) {
      const own = source.bind(principal);
      // Faults are between the tenants that the audit attacks; whoever else is there is only near.
      if (!principal.tenantId.startsWith('canary-')) return own;
      state.tenants.set(principal.tenantId, own);
      const current = () => (state.is('one client for every tenant, made for the first') ? ([...state.tenants.values()][0] ?? own) : own);
      const others = () => [...state.tenants].flatMap(([id, other]) => (id === principal.tenantId ? [] : [other]));
      return {
        ...own,
        files: faulty(() => current().files, faultyFiles(own.files, others, state)),
        vectorStores: faulty(() => current().vectorStores, faultyStores(own.vectorStores, others, { state, tenantId: principal.tenantId })),
        responses: faulty(() => current().responses, faultyResponses(own.responses, others, state)),
        idempotency: faultyIdempotency(own.idempotency, state),
      };
    },
  };
}

/** `cabinet()` with some of its methods replaced. */
function faulty<Cabinet extends object>(cabinet: () => Cabinet, replaced: Partial<Cabinet>): Cabinet {
  return new Proxy({} as Cabinet, {
    get: (_, name) => {
      const own = replaced[name as keyof Cabinet];
      if (own !== undefined) return own;
      const target = cabinet();
      const value = target[name as keyof Cabinet];
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

type Others = () => readonly TenantCapabilities[];

async function firstOf<T>(attempts: readonly (() => Promise<T | undefined>)[]): Promise<T | undefined> {
  for (const attempt of attempts) {
    const found = await attempt();
    if (found !== undefined && found !== false) return found;
  }
  return undefined;
}

function faultyFiles(own: FileCabinet, others: Others, state: FaultState): Partial<FileCabinet> {
  const anywhere = <T>(ask: (files: FileCabinet) => Promise<T | undefined>) => firstOf(others().map((other) => () => ask(other.files)));
  const first = () => (state.is('one client for every tenant, made for the first') ? ([...state.tenants.values()][0]?.files ?? own) : own);
  return {
    async create(file) {
      const stored = await first().create(file);
      state.fileNames.set(stored.id, stored.filename);
      return stored;
    },
    async get(fileId) {
      const found = await first().get(fileId);
      if (found !== undefined) return found;
      if (state.is('a file found by its id alone')) return anywhere((files) => files.get(fileId));
      const isForeign = state.is('403 for what another tenant has') && (await anywhere((files) => files.get(fileId))) !== undefined;
      if (isForeign) throw new BulkheadError('permission_denied', 'This file is not yours.');
      return undefined;
    },
    async read(fileId) {
      const found = await first().read(fileId);
      return found ?? (state.is('a file found by its id alone') ? anywhere((files) => files.read(fileId)) : undefined);
    },
    async list(page, purpose) {
      if (state.is('a cursor of anybody') && page.after !== undefined && state.fileNames.has(page.after)) {
        return first().list({ limit: page.limit, order: page.order }, purpose);
      }
      const mine = await first().list(page, purpose);
      if (!state.is('a list without its filter')) return mine;
      const theirs = await Promise.all(others().map((other) => other.files.list({ limit: page.limit, order: page.order }, purpose)));
      return { items: [...mine.items, ...theirs.flatMap(({ items }) => items)], hasMore: false };
    },
    async delete(fileId) {
      if (await first().delete(fileId)) return true;
      return state.is('a deletion by id alone') && (await anywhere((files) => files.delete(fileId))) === true;
    },
  };
}

interface StoreFaults {
  readonly state: FaultState;
  readonly tenantId: string;
}

function faultyStores(own: VectorStoreCabinet, others: Others, { state, tenantId }: StoreFaults): Partial<VectorStoreCabinet> {
  const search: VectorStoreCabinet['search'] = async (storeId, query) => {
    const mine = await own.search(storeId, query);
    if (mine === undefined) return undefined;
    if (state.is('a neighbour’s chunk in a search, its owner rewritten')) {
      const foreign = await chunksOfOthers(others, query);
      return [...foreign.slice(0, 1), ...mine].slice(0, query.limit).map((chunk) => ({ ...chunk, ownerId: tenantId }));
    }
    if (state.is('filtered by tenant after ranking over all')) {
      const all = [...mine, ...(await chunksOfOthers(others, query))].toSorted((left, right) => right.score - left.score);
      return all.slice(0, query.limit).filter(({ ownerId }) => ownerId === tenantId);
    }
    if (state.is('scores from statistics over all tenants')) {
      const bytes = (await storesOfOthers(others)).reduce((sum, { usageBytes }) => sum + usageBytes, 0);
      return mine.map((chunk) => ({ ...chunk, score: chunk.score / (1 + bytes / 1e6) }));
    }
    return mine;
  };
  return {
    async search(storeId, query) {
      if (state.is('one client for every tenant, made for the first'))
        return [...state.tenants.values()][0]?.vectorStores.search(storeId, query);
      if (!state.is('answers of a search kept under the question alone')) return search(storeId, query);
      if (!state.answers.has(query.text)) state.answers.set(query.text, await own.search(storeId, query));
      return state.answers.get(query.text)?.map((chunk) => ({ ...chunk, ownerId: tenantId }));
    },
  };
}

async function storesOfOthers(others: Others) {
  const pages = await Promise.all(others().map((other) => other.vectorStores.list({ limit: 100, order: 'desc' })));
  return pages.flatMap(({ items }) => items);
}

async function chunksOfOthers(others: Others, query: Parameters<VectorStoreCabinet['search']>[1]): Promise<readonly RetrievedChunk[]> {
  const found = await Promise.all(
    others().map(async ({ vectorStores }) => {
      const { items } = await vectorStores.list({ limit: 100, order: 'desc' });
      return Promise.all(items.map(({ id }) => vectorStores.search(id, query)));
    }),
  );
  return found.flat(2).filter((chunk) => chunk !== undefined);
}

function faultyResponses(own: ResponseCabinet, others: Others, state: FaultState): Partial<ResponseCabinet> {
  const anywhere = <T>(ask: (responses: ResponseCabinet) => Promise<T | undefined>) => {
    if (!state.is('a conversation found by its id alone')) return undefined;
    return firstOf(others().map((other) => () => ask(other.responses)));
  };
  return {
    get: async (id) => (await own.get(id)) ?? (await anywhere((responses) => responses.get(id))),
    chain: async (id) => (await own.chain(id)) ?? (await anywhere((responses) => responses.chain(id))),
  };
}

function faultyIdempotency(own: IdempotencyCabinet, state: FaultState): IdempotencyCabinet {
  const of = (route: string, key: string) => {
    if (!state.is('an idempotency key without its tenant')) return own;
    const slot = `${route} ${key}`;
    const first = state.firstByKey.get(slot) ?? own;
    state.firstByKey.set(slot, first);
    return first;
  };
  return {
    claim: (route, key, hash) => of(route, key).claim(route, key, hash),
    complete: (route, key, answer) => of(route, key).complete(route, key, answer),
    release: (route, key) => of(route, key).release(route, key),
  };
}
