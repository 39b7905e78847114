/**
 * JWTs by issuer registry (RFC 7519, RFC 8725, RFC 9068). The unverified `iss` is only a key into the registry: an unknown issuer is
 * refused without a fetch. A tenant-bound issuer speaks for its one tenant whatever its claims say; a platform issuer names the tenant in a claim.
 */
import { errors as joseErrors, jwtVerify } from 'jose';
import { BulkheadError } from '../errors/bulkhead-error.ts';
import type { Clock } from '../primitives/clock.ts';
import { parseTenantId, type TenantId } from '../primitives/ids.ts';
import { isTeamName } from '../tenancy/tenant.ts';
import type { IssuerRegistry, TrustedIssuer } from './issuer-registry.ts';
import { parseUniqueJson } from './unique-json.ts';

export interface VerifiedToken {
  readonly tenantId: TenantId;
  /** `sub`: what revocations name. */
  readonly subject: string;
  /** The configured user claim, or the subject. */
  readonly user: string;
  readonly tier: string | undefined;
  readonly team: string | undefined;
  readonly issuer: string;
  readonly issuedAtMs: number;
  readonly expiresAtMs: number;
}

const tokenBytesMax = 8_192;
const leewaySeconds = 30;
const audiencesMax = 16;
const nameLengthMax = 256;
const kidPattern = /^[A-Za-z0-9_.-]{1,128}$/;

/** Throws `invalid_token` (one text for every forgery) or, for a token that was good once, `token_expired`. */
export async function verifyJwt(token: string, issuers: IssuerRegistry, clock: Clock): Promise<VerifiedToken> {
  const { header, payload } = readParts(token);
  const issuer = typeof payload['iss'] === 'string' ? issuers.get(payload['iss']) : undefined;
  if (issuer === undefined) throw invalidToken();
  const { algorithm, kid } = checkHeader(header, issuer);
  const claims = checkClaims(payload, issuer, clock);
  const key = await issuer.keys.find(kid, algorithm);
  if (key === undefined) throw invalidToken();
  await verifySignature(token, { issuer, key, clock });
  return claims;
}

/** Decides between the two kinds of credential: no API key has a dot in it. */
export function looksLikeJwt(credential: string): boolean {
  return credential.includes('.');
}

function readParts(token: string) {
  if (token.length > tokenBytesMax) throw invalidToken();
  const parts = token.split('.');
  // A JWE has five parts.
  if (parts.length !== 3 || parts.some((part) => !/^[A-Za-z0-9_-]+$/.test(part))) throw invalidToken();
  return { header: decodePart(parts[0] ?? ''), payload: decodePart(parts[1] ?? '') };
}

function decodePart(part: string): Readonly<Record<string, unknown>> {
  const parsed = parseUniqueJson(Buffer.from(part, 'base64url').toString('utf8'));
  if (parsed === undefined) throw invalidToken();
  return parsed;
}

/** Key references inside a token (`jku`, `x5u`, `jwk`, `x5c`) are never followed; critical extensions are refused, because none is known here. */
function checkHeader(header: Readonly<Record<string, unknown>>, issuer: TrustedIssuer) {
  const { alg, kid, typ } = header;
  const algorithm = issuer.algorithms.find((allowed) => allowed === alg);
  const isKid = kid === undefined || (typeof kid === 'string' && kidPattern.test(kid));
  const isType = typeof typ === 'string' && normalType(typ) === normalType(issuer.tokenType);
  if (algorithm === undefined || !isKid || !isType || 'crit' in header) throw invalidToken();
  return { algorithm, kid };
}

function normalType(type: string): string {
  return type.toLowerCase().replace(/^application\//, '');
}

interface Trust {
  readonly issuer: TrustedIssuer;
  readonly key: Parameters<typeof jwtVerify>[1];
  readonly clock: Clock;
}

/** The signature, and the claims that the standard gives a meaning: `iss`, `aud`, `exp`, `nbf`. */
async function verifySignature(token: string, { issuer, key, clock }: Trust): Promise<void> {
  try {
    await jwtVerify(token, key, {
      algorithms: [...issuer.algorithms],
      issuer: issuer.issuer,
      audience: issuer.audience,
      clockTolerance: leewaySeconds,
      currentDate: new Date(clock.nowMs()),
      requiredClaims: ['exp', 'iat', 'sub', 'aud', 'iss'],
    });
  } catch (error) {
    if (error instanceof joseErrors.JWTExpired) throw new BulkheadError('token_expired', 'The token has expired.');
    throw invalidToken(error);
  }
}

/** Form and meaning of the claims. Nothing here may be believed before the signature is verified. */
function checkClaims(claims: Readonly<Record<string, unknown>>, issuer: TrustedIssuer, clock: Clock): VerifiedToken {
  const { iat, exp, nbf, sub, aud } = claims;
  if (!isTime(iat) || !isTime(exp) || (nbf !== undefined && !isTime(nbf)) || !isName(sub) || !isAudience(aud)) throw invalidToken();
  const isFromTheFuture = iat > clock.nowMs() / 1_000 + leewaySeconds;
  if (isFromTheFuture || exp <= iat || exp - iat > issuer.maxTokenAgeSeconds) throw invalidToken();
  const user = claims[issuer.claims.user] ?? sub;
  if (!isName(user)) throw invalidToken();
  return {
    tenantId: tenantOf(claims[issuer.claims.tenant], issuer),
    subject: sub,
    user,
    tier: tierOf(claims[issuer.claims.tier], issuer),
    team: issuer.claims.team === undefined ? undefined : teamOf(claims[issuer.claims.team]),
    issuer: issuer.issuer,
    issuedAtMs: iat * 1_000,
    expiresAtMs: exp * 1_000,
  };
}

/** The registry decides; a claim may only agree. */
function tenantOf(claim: unknown, { speaksFor }: TrustedIssuer): TenantId {
  switch (speaksFor.kind) {
    case 'tenant':
      if (claim !== undefined && claim !== speaksFor.tenantId) throw invalidToken();
      return speaksFor.tenantId;
    case 'platform': {
      const tenantId = parseTenantId(claim);
      if (tenantId === undefined) throw invalidToken();
      return tenantId;
    }
    default:
      return speaksFor satisfies never;
  }
}

/** Only a platform issuer decides what somebody pays for. */
function tierOf(claim: unknown, { speaksFor }: TrustedIssuer): string | undefined {
  if (speaksFor.kind === 'tenant' || claim === undefined) return undefined;
  if (typeof claim !== 'string') throw invalidToken();
  return claim;
}

/** A part of its tenant: also the tenant's own issuer may say which. */
function teamOf(claim: unknown): string | undefined {
  if (claim === undefined) return undefined;
  if (!isTeamName(claim)) throw invalidToken();
  return claim;
}

/** Seconds within the years 2000 to 2100; 1e308 and -1 are not moments. */
function isTime(value: unknown): value is number {
  return typeof value === 'number' && value > 946_684_800 && value < 4_102_444_800;
}

/** Names travel into logs, ledgers and databases: no control characters (PostgreSQL stores no NUL), no halves of surrogate pairs. */
function isName(value: unknown): value is string {
  return typeof value === 'string' && value !== '' && value.length <= nameLengthMax && !/\p{Cc}/u.test(value) && value.isWellFormed();
}

function isAudience(value: unknown): boolean {
  return (
    typeof value === 'string' || (Array.isArray(value) && value.length <= audiencesMax && value.every((entry) => typeof entry === 'string'))
  );
}

function invalidToken(cause?: unknown): BulkheadError {
  return new BulkheadError('invalid_token', 'The token is not valid here.', { cause });
}
