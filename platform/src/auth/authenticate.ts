/**
 * Stage 1: credential -> Principal -> TenantScope. Before it: the edge read headers. After it: every stage works with the scope.
 *
 * Invariants: the tenant comes from the verified credential and from nowhere else; a repeated credential costs one hash and one lookup; a
 * revocation is seen at once in the process that made it and within the follower's period in every other; every refusal of the same kind
 * reads the same, so it does not tell whether a key or a tenant exists.
 */
import type { IncomingHttpHeaders } from 'node:http';
import { BulkheadError } from '../errors/bulkhead-error.ts';
import type { Clock } from '../primitives/clock.ts';
import type { TenantId } from '../primitives/ids.ts';
import { mintPrincipal } from '../tenancy/mint-principal.ts';
import type { PrincipalFacts } from '../tenancy/principal.ts';
import type { TierPolicy } from '../tenancy/tenant.ts';
import type { DirectoryChange, TenantDirectory } from '../tenancy/tenant-directory.ts';
import { openTenantScope, type TenantDataSource, type TenantScope } from '../tenancy/tenant-scope.ts';
import { matchesApiKey, type Peppers, parseApiKey } from './api-key.ts';
import { CredentialCache, slotOf } from './credential-cache.ts';
import { credentialOf, refuseTenantSelection } from './credentials.ts';
import { looksLikeJwt, type TrustedIssuer, verifyJwt } from './verify-jwt.ts';

export interface AuthenticatorParts {
  readonly directory: TenantDirectory;
  readonly issuers: ReadonlyMap<string, TrustedIssuer>;
  readonly peppers: Peppers;
  readonly tiers: ReadonlyMap<string, TierPolicy>;
  readonly data: TenantDataSource;
  readonly clock: Clock;
  readonly cacheEntriesMax: number;
  /** Environments of keys that are admitted; a `test` key is refused where only `live` is. */
  readonly keyEnvironments: ReadonlySet<'live' | 'test'>;
}

export interface CredentialCarrier {
  readonly headers: IncomingHttpHeaders;
  /** Name, value, name, value ... as they arrived. */
  readonly rawHeaders: readonly string[];
  readonly query: URLSearchParams;
}

export interface Authenticator {
  /** Returns the scope at once for a credential seen lately. Throws or rejects with 400, 401 or 403. */
  authenticate(carrier: CredentialCarrier): TenantScope | Promise<TenantScope>;
  /** Forgets what a change of the directory made stale. */
  apply(change: DirectoryChange): void;
  forgetAll(): void;
}

export function createAuthenticator(parts: AuthenticatorParts): Authenticator {
  const cache = new CredentialCache(parts.clock, parts.cacheEntriesMax);
  const running = new Map<string, Promise<TenantScope>>();
  return {
    authenticate(carrier) {
      refuseTenantSelection(carrier.headers, carrier.query);
      const credential = credentialOf(carrier.headers, carrier.rawHeaders);
      const slot = slotOf(credential);
      const known = cache.get(slot);
      if (known !== undefined) return known;
      const refusal = cache.refusal(slot);
      if (refusal !== undefined) throw refusal;
      return verifyOnce({ parts, cache, running }, slot, credential);
    },
    apply: (change) => cache.forgetTenant(change.tenantId),
    forgetAll: () => cache.forgetAll(),
  };
}

interface Verification {
  readonly parts: AuthenticatorParts;
  readonly cache: CredentialCache;
  readonly running: Map<string, Promise<TenantScope>>;
}

/** Requests that arrive together with the same new credential share one verification. */
function verifyOnce(verification: Verification, slot: string, credential: string): Promise<TenantScope> {
  const { running } = verification;
  const shared = running.get(slot);
  if (shared !== undefined) return shared;
  const fresh = verify(verification, slot, credential).finally(() => running.delete(slot));
  running.set(slot, fresh);
  return fresh;
}

async function verify({ parts, cache }: Verification, slot: string, credential: string): Promise<TenantScope> {
  const { generation } = cache;
  try {
    const { facts, expiresAtMs } = looksLikeJwt(credential) ? await factsOfToken(parts, credential) : await factsOfKey(parts, credential);
    const scope = await openScope(parts, facts);
    cache.put(slot, { scope, expiresAtMs }, generation);
    return scope;
  } catch (error) {
    const isRefusal = error instanceof BulkheadError && (error.rule.status === 401 || error.rule.status === 403);
    if (isRefusal) cache.refuse(slot, error);
    throw error;
  }
}

interface VerifiedFacts {
  readonly facts: PrincipalFacts;
  readonly expiresAtMs: number;
}

async function factsOfKey(parts: AuthenticatorParts, text: string): Promise<VerifiedFacts> {
  const parsed = parseApiKey(text);
  if (parsed === undefined) throw invalidApiKey();
  const record = await parts.directory.findApiKey(parsed.id);
  const isMatch = matchesApiKey(text, record, parts.peppers);
  const nowMs = parts.clock.nowMs();
  const isLive =
    record !== undefined && record.revokedAtMs === undefined && (record.expiresAtMs === undefined || nowMs < record.expiresAtMs);
  if (!isMatch || !isLive || !parts.keyEnvironments.has(record.environment)) throw invalidApiKey();
  const facts: PrincipalFacts = {
    tenantId: record.tenantId,
    kind: 'api-key',
    user: `key:${record.id}`,
    keyId: record.id,
    keyLimits: record.limits,
  };
  return { facts, expiresAtMs: record.expiresAtMs ?? Number.POSITIVE_INFINITY };
}

async function factsOfToken(parts: AuthenticatorParts, token: string): Promise<VerifiedFacts> {
  const verified = await verifyJwt(token, parts.issuers, parts.clock);
  if (verified.tier !== undefined && !parts.tiers.has(verified.tier))
    throw new BulkheadError('invalid_token', 'The token is not valid here.');
  await refuseRevoked(parts, verified);
  const { tenantId, user, tier, issuer } = verified;
  return { facts: { tenantId, kind: 'jwt', user, keyId: `iss:${issuer}`.slice(0, 128), tier }, expiresAtMs: verified.expiresAtMs };
}

async function refuseRevoked(
  parts: AuthenticatorParts,
  token: { readonly tenantId: TenantId; readonly user: string; readonly issuedAtMs: number },
): Promise<void> {
  const notBeforeMs = await parts.directory.subjectNotBeforeMs(token.tenantId, token.user);
  // `iat` has whole seconds: a token of the same second as the revocation counts as older.
  if (notBeforeMs !== undefined && token.issuedAtMs <= notBeforeMs) throw new BulkheadError('token_revoked', 'The token was revoked.');
}

async function openScope(parts: AuthenticatorParts, facts: PrincipalFacts): Promise<TenantScope> {
  const unknown = () => (facts.kind === 'jwt' ? new BulkheadError('invalid_token', 'The token is not valid here.') : invalidApiKey());
  const tenant = await parts.directory.find(facts.tenantId);
  if (tenant === undefined || tenant.state === 'deleting') throw unknown();
  if (tenant.state === 'suspended') throw new BulkheadError('tenant_suspended', 'This tenant is suspended.');
  const tier = parts.tiers.get(facts.tier ?? tenant.tier);
  if (tier === undefined) throw unknown();
  return openTenantScope(mintPrincipal(facts), tenant, tier, parts.data);
}

function invalidApiKey(): BulkheadError {
  return new BulkheadError('invalid_api_key', 'The API key is not valid.');
}
