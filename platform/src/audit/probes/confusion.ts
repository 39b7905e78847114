/**
 * Q: requests of all tenants interleaved over shared connections, some hung up on, some for others' things; each answer may hold its own tenant's
 * canaries alone and must hold the one it asked for. I1: one idempotency key used by everybody is everybody's own.
 */
import { randomInt, randomUUID } from 'node:crypto';
import type { SeenAnswer } from '../attempt.ts';
import type { AuditRequest } from '../audit-ports.ts';
import type { CanaryTenant } from '../canary-tenant.ts';
import { type ProbeContext, parsed } from './probe-context.ts';

const atOnce = 8;
const requestsTotal = { full: 320, smoke: 48 } as const;

interface Turn {
  readonly request: AuditRequest;
  /** What the answer must hold; undefined: it is refused. */
  readonly wants: string | undefined;
  readonly leaves: boolean;
}

interface Tally {
  asked: number;
  foreign: number;
  wrong: number;
  held: number;
  wanted: number;
  ms: number;
  worst: SeenAnswer | undefined;
}

export async function probeConfusion(context: ProbeContext): Promise<void> {
  const tallies = new Map(context.tenants.map((tenant) => [tenant, emptyTally()] as const));
  for (let sent = 0; sent < requestsTotal[context.kind]; sent += atOnce) {
    const turns = Array.from({ length: atOnce }, () => takeTurn(context, tallies));
    await context.calling.pace.spend(() => Promise.all(turns.map((turn) => turn())), context.calling.signal, atOnce);
  }
  for (const [tenant, tally] of tallies) addTally(context, tenant, tally);
  await probeSharedKey(context);
}

function emptyTally(): Tally {
  return { asked: 0, foreign: 0, wrong: 0, held: 0, wanted: 0, ms: 0, worst: undefined };
}

function takeTurn(context: ProbeContext, tallies: ReadonlyMap<CanaryTenant, Tally>): () => Promise<void> {
  const tenant = pick(context.tenants);
  const other = pick(context.tenants.filter((candidate) => candidate !== tenant));
  const turn = pick(turnsOf(tenant, other));
  const tally = tallies.get(tenant) ?? emptyTally();
  return async () => {
    const answer = await tenant.caller.askUnpaced(turn.leaves ? { ...turn.request, leaveAfter: randomInt(1, 200) } : turn.request);
    tally.asked++;
    tally.ms += answer.durationMs;
    if (answer.foreign.length > 0) {
      tally.foreign++;
      tally.worst = answer;
    }
    if (turn.leaves) return;
    if (turn.wants === undefined) tally.wrong += answer.status === 404 ? 0 : 1;
    else {
      tally.wanted++;
      tally.held += answer.body.includes(turn.wants) ? 1 : 0;
    }
  };
}

function turnsOf(tenant: CanaryTenant, other: CanaryTenant): readonly Turn[] {
  const { ids, texts } = tenant;
  const { secrets } = texts;
  const store = `/v1/vector_stores/${ids.storeId}`;
  const get = (path: string, wants: string | undefined, leaves = false): Turn => ({ request: { method: 'GET', path }, wants, leaves });
  const search = (wants: string, leaves = false): Turn => ({
    request: { method: 'POST', path: `${store}/search`, body: { query: 'What is the vault word of this house?' } },
    wants,
    leaves,
  });
  return [
    search(secrets.chunk),
    search(secrets.attribute),
    search(secrets.chunk, true),
    get(`/v1/files/${ids.fileId}/content`, secrets.chunk),
    get(`/v1/files/${ids.fileId}/content`, secrets.chunk, true),
    get(`/v1/files/${ids.fileId}`, secrets.filename),
    get('/v1/vector_stores?limit=100', secrets.storeName),
    get(store, secrets.metadata),
    get(`${store}/files/${ids.fileId}`, secrets.attribute),
    get(`/v1/files/${other.ids.fileId}/content`, undefined),
    get(`/v1/vector_stores/${other.ids.storeId}`, undefined),
  ];
}

function addTally(context: ProbeContext, tenant: CanaryTenant, tally: Tally): void {
  const { asked, foreign, wrong, held, wanted, ms, worst } = tally;
  context.book.add({
    id: 'Q1',
    surface: 'concurrency',
    attacker: tenant.name,
    victim: 'all others',
    attempt: `${asked} requests, ${atOnce} at once, some hung up on`,
    expected: 'own canaries alone, and all of them',
    got: `${foreign} with foreign canaries, ${wrong} foreign things answered, ${wanted - held} without their own`,
    control: wanted > 0 && held === wanted,
    leaked: foreign > 0 || wrong > 0,
    ms: asked === 0 ? 0 : ms / asked,
    answer: worst,
  });
}

/** The same key, route and body from all tenants: each gets a store of its own, and the same one when it asks again. */
async function probeSharedKey(context: ProbeContext): Promise<void> {
  const key = `audit-${randomUUID()}`;
  const request: AuditRequest = {
    method: 'POST',
    path: '/v1/vector_stores',
    headers: { 'idempotency-key': key },
    body: { name: 'kept answer' },
  };
  const first = new Map<CanaryTenant, SeenAnswer>();
  for (const tenant of context.tenants) first.set(tenant, await tenant.caller.ask(request));
  for (const tenant of context.tenants) {
    const again = await tenant.caller.ask(request);
    const own = idOf(first.get(tenant));
    const control = own !== undefined && idOf(again) === own && again.headers['idempotency-replayed'] === 'true';
    for (const victim of context.tenants) {
      if (victim === tenant) continue;
      const isTheirs = own !== undefined && own === idOf(first.get(victim));
      context.book.add({
        id: 'I1',
        surface: 'idempotency',
        attacker: tenant.name,
        victim: victim.name,
        attempt: 'the victim’s idempotency key, route and body',
        expected: 'an answer of one’s own',
        got: isTheirs ? 'the victim’s answer' : `status ${again.status}, one’s own`,
        control,
        leaked: isTheirs || again.foreign.length > 0,
        ms: again.durationMs,
        answer: again,
      });
    }
    if (own !== undefined) await tenant.caller.ask({ method: 'DELETE', path: `/v1/vector_stores/${own}` });
  }
}

function idOf(answer: SeenAnswer | undefined): string | undefined {
  const id = answer === undefined ? undefined : parsed(answer)['id'];
  return typeof id === 'string' ? id : undefined;
}

function pick<T>(items: readonly T[]): T {
  return items[randomInt(items.length)] as T;
}
