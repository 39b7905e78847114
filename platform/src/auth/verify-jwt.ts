/**
 * JWTs by issuer registry (RFC 7519, RFC 8725, RFC 9068). The unverified `iss` is only a key into the registry: an unknown issuer is
 * refused without a fetch. A tenant-bound issuer speaks for its one tenant whatever its claims say; a platform issuer names the tenant in a claim.
 */
import { errors as joseErrors, jwtVerify } from 'jose';
import { BulkheadError } from '../errors/bulkhead-error.ts';
import type { Clock } from '../primitives/clock.ts';
import { parseTenantId, type TenantId } from '../primitives/ids.ts';
import type { KeySource, SignatureAlgorithm } from './jwks-source.ts';
import { parseUniqueJson } from './unique-json.ts';

export interface TrustedIssuer {
  /** Compared exactly. */
  readonly issuer: string;
  readonly audience: string;
  readonly algorithms: readonly SignatureAlgorithm[];
  readonly tokenType: string;
  readonly maxTokenAgeSeconds: number;
  readonly keys: KeySource;
  /** Bound: the tenant this issuer speaks for. Absent: a platform issuer. */
  readonly tenantId?: TenantId | undefined;
  readonly claims: { readonly tenant: string; readonly tier: string; readonly user: string };
}

export interface VerifiedToken {
  readonly tenantId: TenantId;
  readonly user: string;
  readonly tier: string | undefined;
  readonly issuer: string;
  readonly issuedAtMs: number;
  readonly expiresAtMs: number;
}

const tokenBytesMax = 8_192;
const leewaySeconds = 30;
const kidPattern = /^[A-Za-z0-9_.-]{1,128}$/;

/** Throws `invalid_token` (one text for every forgery) or `token_expired`. */
export async function verifyJwt(token: string, issuers: ReadonlyMap<string, TrustedIssuer>, clock: Clock): Promise<VerifiedToken> {
  const { header, payload } = readParts(token);
  const issuer = typeof payload['iss'] === 'string' ? issuers.get(payload['iss']) : undefined;
  if (issuer === undefined) throw invalidToken();
  const { algorithm, kid } = checkHeader(header, issuer);
  const key = await issuer.keys.find(kid, algorithm);
  if (key === undefined) throw invalidToken();
  const claims = await verifySignature(token, { issuer, key, clock });
  return checkClaims(claims, issuer, clock);
}

/** Looks like a JWS in compact form; decides between the two kinds of credential. */
export function looksLikeJwt(credential: string): boolean {
  return credential.startsWith('ey') && credential.includes('.');
}

function readParts(token: string) {
  const parts = token.split('.');
  if (token.length > tokenBytesMax || parts.length !== 3 || parts.some((part) => !/^[A-Za-z0-9_-]+$/.test(part))) throw invalidToken();
  return { header: decodePart(parts[0] ?? ''), payload: decodePart(parts[1] ?? '') };
}

function decodePart(part: string): Readonly<Record<string, unknown>> {
  const parsed = parseUniqueJson(Buffer.from(part, 'base64url').toString('utf8'));
  if (parsed === undefined) throw invalidToken();
  return parsed;
}

/** Key references inside a token (`jku`, `x5u`, `jwk`, `x5c`) are never followed; an unknown `crit` is refused by jose. */
function checkHeader(header: Readonly<Record<string, unknown>>, issuer: TrustedIssuer) {
  const { alg, kid, typ } = header;
  const isAllowed = typeof alg === 'string' && (issuer.algorithms as readonly string[]).includes(alg);
  const isKid = kid === undefined || (typeof kid === 'string' && kidPattern.test(kid));
  const isType = typeof typ === 'string' && normalType(typ) === normalType(issuer.tokenType);
  if (!isAllowed || !isKid || !isType || 'crit' in header) throw invalidToken();
  return { algorithm: alg as SignatureAlgorithm, kid: kid as string | undefined };
}

function normalType(type: string): string {
  return type.toLowerCase().replace(/^application\//, '');
}

async function verifySignature(token: string, trust: { issuer: TrustedIssuer; key: Parameters<typeof jwtVerify>[1]; clock: Clock }) {
  const { issuer, key, clock } = trust;
  try {
    const { payload } = await jwtVerify(token, key, {
      algorithms: [...issuer.algorithms],
      issuer: issuer.issuer,
      audience: issuer.audience,
      clockTolerance: leewaySeconds,
      currentDate: new Date(clock.nowMs()),
      requiredClaims: ['exp', 'iat', 'sub', 'aud', 'iss'],
    });
    return payload;
  } catch (error) {
    if (error instanceof joseErrors.JWTExpired) throw new BulkheadError('token_expired', 'The token has expired.');
    throw invalidToken(error);
  }
}

function checkClaims(claims: Readonly<Record<string, unknown>>, issuer: TrustedIssuer, clock: Clock): VerifiedToken {
  const { iat, exp, sub } = claims;
  const nowSeconds = clock.nowMs() / 1_000;
  const areTimes = isTime(iat) && isTime(exp);
  if (!areTimes || typeof sub !== 'string' || sub === '' || sub.length > 256) throw invalidToken();
  if (iat > nowSeconds + leewaySeconds || exp - iat > issuer.maxTokenAgeSeconds || exp <= iat) throw invalidToken();
  const user = claims[issuer.claims.user];
  const tier = claims[issuer.claims.tier];
  return {
    tenantId: tenantOf(claims[issuer.claims.tenant], issuer),
    user: typeof user === 'string' && user !== '' && user.length <= 256 ? user : sub,
    tier: issuer.tenantId === undefined && typeof tier === 'string' ? tier : undefined,
    issuer: issuer.issuer,
    issuedAtMs: iat * 1_000,
    expiresAtMs: exp * 1_000,
  };
}

/** The registry decides; a claim may only agree. */
function tenantOf(claim: unknown, issuer: TrustedIssuer): TenantId {
  if (issuer.tenantId !== undefined) {
    if (claim !== undefined && claim !== issuer.tenantId) throw invalidToken();
    return issuer.tenantId;
  }
  const tenantId = parseTenantId(claim);
  if (tenantId === undefined) throw invalidToken();
  return tenantId;
}

/** Seconds within the years 2000 to 2100; 1e308 and -1 are not moments. */
function isTime(value: unknown): value is number {
  return typeof value === 'number' && Number.isFinite(value) && value > 946_684_800 && value < 4_102_444_800;
}

function invalidToken(cause?: unknown): BulkheadError {
  return new BulkheadError('invalid_token', 'The token is not valid here.', { cause });
}
