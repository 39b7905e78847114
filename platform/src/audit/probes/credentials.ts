/** J: forged credentials, and every way to name a tenant beside the credential. A forgery must be refused; the good one beside it must pass. */
import { randomBytes } from 'node:crypto';
import { issueApiKey, sealApiKey } from '../../auth/api-key.ts';
import { Caller, type SeenAnswer } from '../attempt.ts';
import type { CanaryIssuer } from '../audit-ports.ts';
import type { CanaryTenant } from '../canary-tenant.ts';
import { type Forgery, forgeries, goodToken, impersonations } from './forgeries.ts';
import { type Pair, type ProbeContext, shown } from './probe-context.ts';

const target = { method: 'GET', path: '/v1/vector_stores?limit=100' } as const;

export async function probeCredentials(context: ProbeContext): Promise<void> {
  const passes = new Map<CanaryTenant, boolean>();
  for (const tenant of context.tenants) passes.set(tenant, await isGoodTokenAccepted(context, tenant));
  for (const pair of context.pairs) {
    await probeNamedTenant(context, pair);
    await probeMixedKey(context, pair);
    const control = passes.get(pair.attacker) === true && passes.get(pair.victim) === true;
    await probeImpersonation(context, pair, control);
  }
  if (context.kind === 'smoke') return;
  for (const tenant of context.tenants) {
    await probeKeys(context, tenant);
    await probeRevocation(context, tenant);
  }
  // They are refused before anybody's tenant matters: one issuer stands for all.
  const [first] = context.tenants.filter(({ enrolled }) => enrolled.issuer !== undefined);
  if (first !== undefined) await probeForgeries(context, first, passes.get(first) ?? false);
}

interface Attempt {
  readonly id: string;
  readonly attempt: string;
  readonly attacker: string;
  readonly victim: string;
  readonly control: boolean;
}

/** Anything but a refusal is a leak: the credential was accepted. */
function judge({ book }: ProbeContext, attempt: Attempt, answer: SeenAnswer): void {
  book.add({
    ...attempt,
    surface: 'credentials',
    expected: 'refused with 400 or 401',
    got: shown(answer),
    leaked: answer.status < 400 || answer.foreign.length > 0,
    unclear: answer.status !== 400 && answer.status !== 401,
    ms: answer.durationMs,
    answer,
  });
}

function stranger({ calling }: ProbeContext, credential: string | undefined): Caller {
  return new Caller(calling, undefined, credential);
}

async function isGoodTokenAccepted(context: ProbeContext, { enrolled }: CanaryTenant): Promise<boolean> {
  if (enrolled.issuer === undefined) return false;
  const caller = new Caller(context.calling, enrolled.tenantId, goodToken(enrolled.issuer, nowSeconds()));
  return (await caller.ask(target)).status === 200;
}

/** Headers, query and body that name the victim, beside one's own good key. */
async function probeNamedTenant(context: ProbeContext, { attacker, victim }: Pair): Promise<void> {
  const { caller } = attacker;
  const control = (await caller.ask(target)).status === 200;
  const what = { attacker: attacker.name, victim: victim.name, control };
  const body = { query: 'vault', tenant_id: victim.name };
  const every: readonly (readonly [string, Parameters<Caller['ask']>[0]])[] = [
    ['the victim in x-tenant-id', { ...target, headers: { 'x-tenant-id': victim.name } }],
    ['the victim in the query', { ...target, path: `${target.path}&tenant_id=${victim.name}` }],
    ['the victim in the body', { method: 'POST', path: `/v1/vector_stores/${attacker.ids.storeId}/search`, body }],
    ['the victim’s key in a second header', { ...target, headers: { 'x-api-key': victim.key } }],
  ];
  const attempts = context.kind === 'full' ? every : every.slice(0, 1);
  for (const [attempt, request] of attempts) judge(context, { ...what, id: 'J29', attempt }, await caller.ask(request));
}

/** The victim's key id with one's own secret, well-formed to the checksum. */
async function probeMixedKey(context: ProbeContext, { attacker, victim }: Pair): Promise<void> {
  const mixed = sealApiKey(`bh_live_${victim.ids.keyId}_${attacker.key.slice('bh_live_'.length + 9, -6)}`);
  const control = (await victim.caller.ask(target)).status === 200;
  const what = { id: 'J26', attempt: 'the victim’s key id with one’s own secret', attacker: attacker.name, victim: victim.name, control };
  judge(context, what, await stranger(context, mixed).ask(target));
}

async function probeImpersonation(context: ProbeContext, { attacker, victim }: Pair, control: boolean): Promise<void> {
  const [own, theirs] = [attacker.enrolled.issuer, victim.enrolled.issuer];
  if (own === undefined || theirs === undefined) return;
  for (const { id, attempt, token } of impersonations(own, theirs, { victimId: victim.name, nowSeconds: nowSeconds() })) {
    judge(context, { id, attempt, attacker: attacker.name, victim: victim.name, control }, await stranger(context, token).ask(target));
  }
}

async function probeForgeries(context: ProbeContext, tenant: CanaryTenant, control: boolean): Promise<void> {
  const { issuer } = tenant.enrolled;
  if (issuer === undefined) return;
  for (const forgery of forgeries(issuer, nowSeconds())) {
    const answer = await stranger(context, forgery.token).ask(target);
    judge(context, { ...facts(forgery), attacker: 'anybody', victim: tenant.name, control }, answer);
  }
}

function facts({ id, attempt }: Forgery) {
  return { id, attempt };
}

/** J1, J26 and J28. */
async function probeKeys(context: ProbeContext, tenant: CanaryTenant): Promise<void> {
  const { key, name: victim } = tenant;
  const control = (await tenant.caller.ask(target)).status === 200;
  const what = { attacker: 'anybody', victim, control };
  const unknown = issueApiKey(
    { current: 1, byVersion: new Map([[1, randomBytes(32)]]) },
    { tenantId: tenant.enrolled.tenantId, name: 'forged', environment: 'live', limits: {}, expiresAtMs: undefined },
  ).key;
  const last = key.endsWith('a') ? 'b' : 'a';
  judge(context, { ...what, id: 'J1', attempt: 'no credential' }, await stranger(context, undefined).ask(target));
  judge(context, { ...what, id: 'J26', attempt: 'a wrong checksum' }, await stranger(context, key.slice(0, -1) + last).ask(target));
  judge(context, { ...what, id: 'J26', attempt: 'an unknown key of the right form' }, await stranger(context, unknown).ask(target));
  const inQuery = { ...target, path: `${target.path}&api_key=${unknown}` };
  judge(context, { ...what, id: 'J28', attempt: 'a key in the query' }, await stranger(context, undefined).ask(inQuery));
  const ended = await context.ground.issueKey(tenant.enrolled.tenantId);
  const caller = new Caller(context.calling, tenant.enrolled.tenantId, ended.key);
  const worked = (await caller.ask(target)).status === 200;
  await context.ground.revokeKey(tenant.enrolled.tenantId, ended.keyId);
  judge(context, { ...what, id: 'J26', attempt: 'a revoked key', control: worked }, await caller.ask(target));
}

/** J21: what a subject was given before its revocation ends with it. */
async function probeRevocation(context: ProbeContext, tenant: CanaryTenant): Promise<void> {
  const { issuer, tenantId } = tenant.enrolled;
  if (issuer === undefined) return;
  const subject = `revoked-${randomBytes(6).toString('hex')}`;
  const caller = new Caller(context.calling, tenantId, tokenOf(issuer, subject));
  const control = (await caller.ask(target)).status === 200;
  await context.ground.revokeSubject(tenantId, subject);
  const what = { id: 'J21', attempt: 'a token of a revoked subject', attacker: 'anybody', victim: tenant.name, control };
  judge(context, what, await caller.ask(target));
}

function tokenOf(issuer: CanaryIssuer, sub: string): string {
  const now = nowSeconds();
  return goodToken(issuer, now, { sub, iat: now - 5 });
}

function nowSeconds(): number {
  return Math.floor(Date.now() / 1_000);
}
