/** A world for attacks on authentication: issuers with real keys behind a real HTTP server, tenants in memory, a clock that tests move. */
import { generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { SignJWT } from 'jose';
import { MemoryTenantDirectory } from '../../src/adapters/memory/tenant-directory.ts';
import { issueApiKey, type Peppers } from '../../src/auth/api-key.ts';
import { type Authenticator, createAuthenticator } from '../../src/auth/authenticate.ts';
import { createIssuerRegistry, type TrustedIssuer } from '../../src/auth/issuer-registry.ts';
import { type KeySource, openJwks, type SignatureAlgorithm } from '../../src/auth/jwks-source.ts';
import { BulkheadError } from '../../src/errors/bulkhead-error.ts';
import { ManualClock } from '../../src/primitives/clock.ts';
import type { TenantId } from '../../src/primitives/ids.ts';
import type { TenantCapabilities } from '../../src/tenancy/capabilities.ts';
import { mintOperatorScope } from '../../src/tenancy/mint-operator-scope.ts';
import type { Tenant, TenantState } from '../../src/tenancy/tenant.ts';
import type { ApiKeyRecord } from '../../src/tenancy/tenant-directory.ts';
import type { TenantScope } from '../../src/tenancy/tenant-scope.ts';
import { tenantId } from '../support/embedded-database.ts';

export const operator = mintOperatorScope('test');
export const platform = 'https://id.example.com/';
export const acmeIdp = 'https://login.acme.example/';
export const globexIdp = 'https://login.globex.example/';

type KeyPair = { readonly publicKey: KeyObject; readonly privateKey: KeyObject };
const pairOf = (algorithm: SignatureAlgorithm): KeyPair => {
  if (algorithm === 'EdDSA') return generateKeyPairSync('ed25519');
  return algorithm === 'ES256' ? generateKeyPairSync('ec', { namedCurve: 'P-256' }) : generateKeyPairSync('rsa', { modulusLength: 2_048 });
};
const rsa = pairOf('RS256');
/** The platform's keys, by what signs with them. */
export const platformKeys: Readonly<Record<SignatureAlgorithm, KeyPair>> = {
  RS256: rsa,
  PS256: rsa,
  ES256: pairOf('ES256'),
  EdDSA: pairOf('EdDSA'),
};
export const keys = { acme: pairOf('EdDSA'), globex: pairOf('ES256'), attacker: pairOf('RS256') };
export const allAlgorithms: readonly SignatureAlgorithm[] = ['RS256', 'PS256', 'ES256', 'EdDSA'];
export const peppers: Peppers = { current: 2, byVersion: new Map([1, 2].map((version) => [version, Buffer.alloc(32, version)])) };

/** Counts what authentication reads, and lets a test act in the middle of it. */
export class WatchedDirectory extends MemoryTenantDirectory {
  lookups = 0;
  duringLookup: () => Promise<void> = async () => {};

  override async find(id: TenantId): Promise<Tenant | undefined> {
    return this.#watched(super.find(id));
  }

  override async findApiKey(keyId: string): Promise<ApiKeyRecord | undefined> {
    return this.#watched(super.findApiKey(keyId));
  }

  override async subjectNotBeforeMs(id: TenantId, subject: string): Promise<number | undefined> {
    return this.#watched(super.subjectNotBeforeMs(id, subject));
  }

  async #watched<Value>(reading: Promise<Value>): Promise<Value> {
    this.lookups++;
    const value = await reading;
    await this.duringLookup();
    return value;
  }
}

export interface WorldOptions {
  readonly issuers?: (fixed: readonly TrustedIssuer[], clock: ManualClock) => readonly TrustedIssuer[];
  readonly cacheEntriesMax?: number;
  readonly verificationsMax?: number;
}

export interface World {
  readonly clock: ManualClock;
  readonly directory: WatchedDirectory;
  readonly authenticator: Authenticator;
}

/** Tenants acme (free) and globex (pro); a platform issuer for every algorithm, and an identity provider of each tenant. */
export async function openWorld(options: WorldOptions = {}): Promise<World> {
  const clock = new ManualClock();
  const directory = new WatchedDirectory(clock);
  for (const [id, tier] of [['acme', 'free'] as const, ['globex', 'pro'] as const]) {
    await directory.create(operator, { id: tenantId(id), name: id, tier, isolation: 'pooled', overrides: {} });
  }
  const fixed = [
    trust(platform, { algorithms: allAlgorithms, keys: platformKeySource }),
    trust(acmeIdp, { algorithms: ['EdDSA'], keys: fixedKey(keys.acme.publicKey), tenant: 'acme' }),
    trust(globexIdp, { algorithms: ['ES256'], keys: fixedKey(keys.globex.publicKey), tenant: 'globex' }),
  ];
  const authenticator = createAuthenticator({
    directory,
    issuers: createIssuerRegistry(options.issuers?.(fixed, clock) ?? fixed),
    peppers,
    tiers: new Map(['free', 'pro'].map((name) => [name, { name, weight: 1, limits: {} }])),
    data: { bind: () => ({}) as TenantCapabilities },
    clock,
    cacheEntriesMax: options.cacheEntriesMax ?? 1_000,
    verificationsMax: options.verificationsMax ?? 100,
    keyEnvironments: new Set(['live']),
  });
  return { clock, directory, authenticator };
}

export interface TrustOptions {
  readonly algorithms: readonly SignatureAlgorithm[];
  readonly keys: KeySource;
  readonly tenant?: string;
  readonly userClaim?: string;
}

export function trust(issuer: string, { algorithms, keys: keySource, tenant, userClaim = 'sub' }: TrustOptions): TrustedIssuer {
  return {
    issuer,
    audience: 'bulkhead',
    algorithms,
    tokenType: 'at+jwt',
    maxTokenAgeSeconds: 3_600,
    keys: keySource,
    speaksFor: tenant === undefined ? { kind: 'platform' } : { kind: 'tenant', tenantId: tenantId(tenant) },
    claims: { tenant: 'tenant_id', tier: 'tier', user: userClaim },
  };
}

export function fixedKey(key: KeyObject): KeySource {
  return { find: async () => key };
}

const platformKeySource: KeySource = { find: async (_, algorithm) => platformKeys[algorithm].publicKey };

export interface TokenChanges {
  readonly header?: Readonly<Record<string, unknown>>;
  readonly claims?: Readonly<Record<string, unknown>>;
  readonly without?: readonly string[];
  readonly key?: KeyObject;
}

/** A token of the platform issuer for acme, right in every respect but the changes, and truly signed. */
export async function platformToken(
  clock: ManualClock,
  { header = {}, claims = {}, without = [], key }: TokenChanges = {},
): Promise<string> {
  const all = { ...claimsOf(clock, platform), tenant_id: 'acme', ...claims };
  return tokenOf({ alg: 'RS256', ...header }, all, { without, key });
}

export async function acmeToken(clock: ManualClock, claims: Readonly<Record<string, unknown>> = {}): Promise<string> {
  return tokenOf({ alg: 'EdDSA' }, { ...claimsOf(clock, acmeIdp), ...claims }, { key: keys.acme.privateKey });
}

export async function globexToken(clock: ManualClock, claims: Readonly<Record<string, unknown>> = {}): Promise<string> {
  return tokenOf({ alg: 'ES256' }, { ...claimsOf(clock, globexIdp), ...claims }, { key: keys.globex.privateKey });
}

export function claimsOf(clock: ManualClock, issuer: string): Record<string, unknown> {
  const now = Math.floor(clock.nowMs() / 1_000);
  return { iss: issuer, aud: 'bulkhead', sub: 'ada', iat: now, exp: now + 600 };
}

async function tokenOf(
  header: Readonly<Record<string, unknown>> & { readonly alg: string },
  claims: Readonly<Record<string, unknown>>,
  { without = [], key }: { readonly without?: readonly string[]; readonly key?: KeyObject | undefined },
): Promise<string> {
  const kept = Object.fromEntries(Object.entries(claims).filter(([name]) => !without.includes(name)));
  const signing = key ?? platformKeys[header.alg as SignatureAlgorithm].privateKey;
  return new SignJWT(kept).setProtectedHeader({ typ: 'at+jwt', ...header }).sign(signing);
}

/** Exactly this header and payload as text, with a true RS256 signature of the platform: for what no library would sign. */
export function signedText(header: string, payload: string): string {
  const input = `${base64url(header)}.${base64url(payload)}`;
  return `${input}.${sign('sha256', Buffer.from(input), rsa.privateKey).toString('base64url')}`;
}

export const base64url = (text: string) => Buffer.from(text).toString('base64url');
export const segmentsOf = (token: string) => token.split('.') as [string, string, string];

/** A request that carries the credential as bearer, with further headers as name, value, name, value. */
export function requestWith(credential: string | undefined, extra: readonly string[] = [], query = '') {
  const rawHeaders = [...(credential === undefined ? [] : ['Authorization', `Bearer ${credential}`]), ...extra];
  const headers: Record<string, string> = {};
  // As Node does it: the first Authorization counts, others are joined.
  for (let index = 0; index < rawHeaders.length; index += 2) {
    const name = (rawHeaders[index] ?? '').toLowerCase();
    const value = rawHeaders[index + 1] ?? '';
    if (headers[name] === undefined) headers[name] = value;
    else if (name !== 'authorization') headers[name] += `, ${value}`;
  }
  return { headers, rawHeaders, query: new URLSearchParams(query) };
}

export type Verdict = { readonly admitted: string; readonly scope: TenantScope } | { readonly refused: string; readonly shown: Refusal };

/** Everything of a refusal that a client can see. */
export interface Refusal {
  readonly status: number;
  readonly type: string;
  readonly message: string;
  readonly param: string | null;
  readonly rest: unknown;
}

export async function verdictOn(world: World, credential: string | undefined, extra: readonly string[] = [], query = ''): Promise<Verdict> {
  try {
    const scope = await world.authenticator.authenticate(requestWith(credential, extra, query));
    return { admitted: scope.tenantId, scope };
  } catch (error) {
    if (!(error instanceof BulkheadError)) throw error;
    const { status, type } = error.rule;
    const { message, param, details, headers, retryAfterMs } = error;
    return { refused: error.code, shown: { status, type, message, param, rest: { details, headers, retryAfterMs } } };
  }
}

/** `admitted: acme`, or the code of the refusal. */
export async function outcomeOf(world: World, credential: string | undefined, extra: readonly string[] = [], query = ''): Promise<string> {
  const verdict = await verdictOn(world, credential, extra, query);
  return 'admitted' in verdict ? `admitted: ${verdict.admitted}` : verdict.refused;
}

export interface KeyChanges {
  readonly tenant?: string;
  readonly environment?: 'live' | 'test';
  readonly expiresAtMs?: number;
}

/** A new key of acme that the directory knows. */
export async function issueKey(world: World, { tenant = 'acme', environment = 'live', expiresAtMs }: KeyChanges = {}) {
  const issued = issueApiKey(peppers, { tenantId: tenantId(tenant), name: 'test', environment, limits: {}, expiresAtMs });
  await world.directory.createApiKey(operator, issued.record);
  return issued;
}

/** A key of the right form and checksum that nobody was given. */
export function unknownKey(): string {
  const key = { tenantId: tenantId('acme'), name: 'x', environment: 'live', limits: {}, expiresAtMs: undefined } as const;
  return issueApiKey(peppers, key).key;
}

export async function setState(world: World, tenant: string, state: TenantState): Promise<void> {
  await world.directory.update(operator, tenantId(tenant), { state });
}

/** Applies what the directory recorded, as the follower would. */
export async function follow(world: World): Promise<void> {
  for (const change of await world.directory.changesSince(0)) world.authenticator.apply(change);
}

export const jwkOf = (key: KeyObject, kid: string | undefined, more: object = {}) => ({
  ...key.export({ format: 'jwk' }),
  ...(kid !== undefined && { kid }),
  ...more,
});

/** A JWKS endpoint on loopback that counts its requests and answers what the test says. */
export class JwksServer implements AsyncDisposable {
  readonly requests: string[] = [];
  answer: (response: ServerResponse, request: IncomingMessage) => void = (response) => response.end('{"keys":[]}');
  readonly #server = createServer((request, response) => {
    this.requests.push(request.url ?? '');
    this.answer(response, request);
  });

  static async open(): Promise<JwksServer> {
    const server = new JwksServer();
    await new Promise<void>((resolve) => server.#server.listen(0, '127.0.0.1', resolve));
    return server;
  }

  serve(...jwks: readonly unknown[]): void {
    this.answer = (response) => response.end(JSON.stringify({ keys: jwks }));
  }

  url(path = '/jwks.json'): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}${path}`;
  }

  source(clock: ManualClock, failures: string[] = []): KeySource {
    return openJwks(this.url(), { clock, onFailure: (reason) => failures.push(reason) });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}
