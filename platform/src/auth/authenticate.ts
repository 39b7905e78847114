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
import { mintPrincipal } from '../tenancy/mint-principal.ts';
import type { PrincipalFacts } from '../tenancy/principal.ts';
import type { TierPolicy } from '../tenancy/tenant.ts';
import type { DirectoryChange, TenantDirectory } from '../tenancy/tenant-directory.ts';
import { openTenantScope, type TenantDataSource, type TenantScope } from '../tenancy/tenant-scope.ts';
import { matchesApiKey, type Peppers, parseApiKey } from './api-key.ts';
import { CredentialCache, slotOf } from './credential-cache.ts';
import { credentialOf, refuseTenantSelection } from './credentials.ts';
import type { IssuerRegistry } from './issuer-registry.ts';
import { refuseRevoked } from './revocation.ts';
import { looksLikeJwt, verifyJwt } from './verify-jwt.ts';

export interface AuthenticatorParts {
  readonly directory: TenantDirectory;
  readonly issuers: IssuerRegistry;
  readonly peppers: Peppers;
  readonly tiers: ReadonlyMap<string, TierPolicy>;
  readonly data: TenantDataSource;
  readonly clock: Clock;
  readonly cacheEntriesMax: number;
  /** Credentials being verified at once; beyond it new ones are refused with 503, while known ones pass. */
  readonly verificationsMax: number;
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
  if (running.size >= verification.parts.verificationsMax) {
    throw new BulkheadError('capacity_unavailable', 'Too many new credentials are being verified.', { retryAfterMs: 1_000 });
  }
  const fresh = verify(verification, slot, credential).finally(() => running.delete(slot));
  running.set(slot, fresh);
  return fresh;
}

async function verify({ parts, cache }: Verification, slot: string, credential: string): Promise<TenantScope> {
  const start = cache.begin();
  try {
    const { facts, expiresAtMs } = looksLikeJwt(credential) ? await factsOfToken(parts, credential) : await factsOfKey(parts, credential);
    const scope = await openScope(parts, facts);
    cache.put(slot, { scope, expiresAtMs }, start);
    return scope;
  } catch (error) {
    const isRefusal = error instanceof BulkheadError && (error.rule.status === 401 || error.rule.status === 403);
    if (isRefusal) cache.refuse(slot, error, start);
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
    team: record.team,
    keyPolicy: { limits: record.limits, budget: record.budget },
  };
  return { facts, expiresAtMs: record.expiresAtMs ?? Number.POSITIVE_INFINITY };
}

async function factsOfToken(parts: AuthenticatorParts, token: string): Promise<VerifiedFacts> {
  const verified = await verifyJwt(token, parts.issuers, parts.clock);
  const { tenantId, user, tier, team, issuer, expiresAtMs } = verified;
  if (tier !== undefined && !parts.tiers.has(tier)) throw invalidToken();
  await refuseRevoked(parts.directory, verified);
  return { facts: { tenantId, kind: 'jwt', user, keyId: `iss:${issuer}`.slice(0, 128), tier, team }, expiresAtMs };
}

/** The credential is good; whether its tenant is there is said in the words for a credential that is not. */
async function openScope(parts: AuthenticatorParts, facts: PrincipalFacts): Promise<TenantScope> {
  const tenant = await parts.directory.find(facts.tenantId);
  if (tenant === undefined || tenant.state === 'deleting') throw facts.kind === 'jwt' ? invalidToken() : invalidApiKey();
  if (tenant.state === 'suspended') throw new BulkheadError('tenant_suspended', 'This tenant is suspended.');
  const tier = parts.tiers.get(facts.tier ?? tenant.tier);
  if (tier === undefined) throw new BulkheadError('permission_denied', 'The tier of this tenant is not configured here; ask its operator.');
  return openTenantScope(mintPrincipal(facts), tenant, tier, parts.data);
}

function invalidToken(): BulkheadError {
  return new BulkheadError('invalid_token', 'The token is not valid here.');
}

function invalidApiKey(): BulkheadError {
  return new BulkheadError('invalid_api_key', 'The API key is not valid.');
}
