/** U: limit headers count a tenant's own requests alone; another's traffic moves nothing. */
import { Caller, type SeenAnswer } from '../attempt.ts';
import type { CanaryTenant } from '../canary-tenant.ts';
import type { Pair, ProbeContext } from './probe-context.ts';

/** One comes back a second: on a busy machine, too, five requests more are seen. */
const requestsPerMinute = 60;
const foreignRequests = 5;

export async function probeLimits(context: ProbeContext): Promise<void> {
  if (context.kind === 'smoke') return;
  for (const tenant of context.tenants) await probeOwnLimit(context, tenant);
  for (const pair of context.pairs) await probeForeignTraffic(context, pair);
}

/** U1: every canary tenant has a limit that nobody else has. */
async function probeOwnLimit(context: ProbeContext, tenant: CanaryTenant): Promise<void> {
  const { requestsPerMinute: own } = tenant.enrolled;
  if (own === undefined) return;
  const answer = await tenant.caller.ask(embedding(context));
  const limit = answer.headers['x-ratelimit-limit-requests'];
  context.book.add({
    id: 'U1',
    surface: 'limits',
    attacker: tenant.name,
    victim: 'all others',
    attempt: 'whose limit the headers show',
    expected: `${own}`,
    got: limit ?? `no header, status ${answer.status}`,
    control: limit !== undefined,
    leaked: limit !== undefined && limit !== String(own),
    ms: answer.durationMs,
    answer,
  });
}

/** U2: keys of their own with one and the same limit show what remains; the victim's requests in between do not lower it. */
async function probeForeignTraffic(context: ProbeContext, { attacker, victim }: Pair): Promise<void> {
  const { tenantId } = attacker.enrolled;
  const { key, keyId } = await context.ground.issueKey(tenantId, requestsPerMinute);
  const theirs = await context.ground.issueKey(victim.enrolled.tenantId, requestsPerMinute);
  try {
    const caller = new Caller(context.calling, tenantId, key);
    const other = new Caller(context.calling, victim.enrolled.tenantId, theirs.key);
    const before = remaining(await caller.ask(embedding(context)));
    for (let sent = 0; sent < foreignRequests; sent++) await other.ask(embedding(context));
    const answer = await caller.ask(embedding(context));
    const after = remaining(answer);
    context.book.add({
      id: 'U2',
      surface: 'limits',
      attacker: attacker.name,
      victim: victim.name,
      attempt: `${foreignRequests} requests of the victim in between`,
      expected: 'one request fewer remains, or more',
      got: `${before} then ${after}`,
      control: before <= requestsPerMinute - 1,
      leaked: after < before - 1,
      unclear: Number.isNaN(before) || Number.isNaN(after),
      ms: answer.durationMs,
      answer,
    });
  } finally {
    await context.ground.revokeKey(tenantId, keyId);
    await context.ground.revokeKey(victim.enrolled.tenantId, theirs.keyId);
  }
}

function embedding({ embeddingModel }: ProbeContext) {
  return { method: 'POST', path: '/v1/embeddings', body: { model: embeddingModel, input: 'a word' } };
}

function remaining(answer: SeenAnswer): number {
  return Number(answer.headers['x-ratelimit-remaining-requests'] ?? Number.NaN);
}
