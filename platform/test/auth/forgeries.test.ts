/**
 * J1 to J28 of the forgery list: every way to an identity that is not one's own. Each must end in 400 or 401 with nothing learned.
 * All of the list can be tried with what exists; J26's other environment and J28's log are here too.
 */
import { createHmac, createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { CompactEncrypt, SignJWT } from 'jose';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { issueApiKey, type Peppers } from '../../src/auth/api-key.ts';
import { type Authenticator, createAuthenticator } from '../../src/auth/authenticate.ts';
import { type KeySource, openJwks, type SignatureAlgorithm } from '../../src/auth/jwks-source.ts';
import type { TrustedIssuer } from '../../src/auth/verify-jwt.ts';
import { BulkheadError } from '../../src/errors/bulkhead-error.ts';
import { ManualClock } from '../../src/primitives/clock.ts';
import type { TenantCapabilities } from '../../src/tenancy/capabilities.ts';
import { tenantId } from '../support/embedded-database.ts';
import { MemoryDirectory } from '../support/memory-directory.ts';

const platform = 'https://id.example.com/';
const acmeIdp = 'https://login.acme.example/';
const globexIdp = 'https://login.globex.example/';
const keys = {
  platform: generateKeyPairSync('rsa', { modulusLength: 2_048 }),
  acme: generateKeyPairSync('ed25519'),
  globex: generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  attacker: generateKeyPairSync('rsa', { modulusLength: 2_048 }),
};
const peppers: Peppers = { current: 1, byVersion: new Map([[1, Buffer.alloc(32, 7)]]) };

let clock: ManualClock;
let directory: MemoryDirectory;
let authenticator: Authenticator;

function fixedKey(key: KeyObject): KeySource {
  return { find: async () => key };
}

function trust(issuer: string, algorithms: readonly SignatureAlgorithm[], keySource: KeySource, tenant?: string): TrustedIssuer {
  const claims = { tenant: 'tenant_id', tier: 'tier', user: 'sub' };
  return {
    issuer,
    audience: 'bulkhead',
    algorithms,
    tokenType: 'at+jwt',
    maxTokenAgeSeconds: 3_600,
    keys: keySource,
    claims,
    tenantId: tenant === undefined ? undefined : tenantId(tenant),
  };
}

function openAuthenticator(platformKeys: KeySource = fixedKey(keys.platform.publicKey)): Authenticator {
  const issuers = [
    trust(platform, ['RS256', 'PS256'], platformKeys),
    trust(acmeIdp, ['EdDSA'], fixedKey(keys.acme.publicKey), 'acme'),
    trust(globexIdp, ['ES256'], fixedKey(keys.globex.publicKey), 'globex'),
  ];
  return createAuthenticator({
    directory,
    issuers: new Map(issuers.map((issuer) => [issuer.issuer, issuer])),
    peppers,
    tiers: new Map(['free', 'pro'].map((name) => [name, { name, weight: 1, limits: {} }])),
    data: { bind: () => ({}) as TenantCapabilities },
    clock,
    cacheEntriesMax: 1_000,
    keyEnvironments: new Set(['live']),
  });
}

beforeEach(() => {
  clock = new ManualClock();
  directory = new MemoryDirectory();
  for (const tenant of ['acme', 'globex']) directory.addTenant(tenant);
  authenticator = openAuthenticator();
});

interface TokenChanges {
  readonly header?: Record<string, unknown>;
  readonly claims?: Record<string, unknown>;
  readonly without?: readonly string[];
  readonly key?: KeyObject;
}

/** A token of the platform issuer for acme, right in every respect but the changes. */
async function platformToken({
  header = {},
  claims = {},
  without = [],
  key = keys.platform.privateKey,
}: TokenChanges = {}): Promise<string> {
  const now = Math.floor(clock.nowMs() / 1_000);
  const all: Record<string, unknown> = {
    iss: platform,
    aud: 'bulkhead',
    sub: 'ada',
    iat: now,
    exp: now + 600,
    tenant_id: 'acme',
    ...claims,
  };
  for (const name of without) delete all[name];
  return new SignJWT(all).setProtectedHeader({ alg: 'RS256', typ: 'at+jwt', ...header }).sign(key);
}

const encode = (value: unknown) => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');

function authenticate(credential: string | undefined, extra: readonly string[] = [], query = '') {
  const raw = [...(credential === undefined ? [] : ['authorization', `Bearer ${credential}`]), ...extra];
  const headers: Record<string, string> = {};
  for (let index = 0; index < raw.length; index += 2) headers[(raw[index] ?? '').toLowerCase()] = raw[index + 1] ?? '';
  return authenticator.authenticate({ headers, rawHeaders: raw, query: new URLSearchParams(query) });
}

async function codeOf(credential: string | undefined, extra: readonly string[] = [], query = ''): Promise<string> {
  try {
    const scope = await authenticate(credential, extra, query);
    return `admitted as ${scope.tenantId}`;
  } catch (error) {
    if (error instanceof BulkheadError) return error.code;
    throw error;
  }
}

const segments = (token: string) => token.split('.') as [string, string, string];

describe('what is right', () => {
  it.each(['RS256', 'PS256'])('admits a platform token signed with %s', async (alg) => {
    expect(await codeOf(await platformToken({ header: { alg } }))).toBe('admitted as acme');
  });

  it('admits tokens of tenant-bound issuers (EdDSA, ES256) as their tenant', async () => {
    const now = Math.floor(clock.nowMs() / 1_000);
    const own = (issuer: string) => ({ iss: issuer, aud: 'bulkhead', sub: 'ada', iat: now, exp: now + 600 });
    expect(
      await codeOf(await new SignJWT(own(acmeIdp)).setProtectedHeader({ alg: 'EdDSA', typ: 'at+jwt' }).sign(keys.acme.privateKey)),
    ).toBe('admitted as acme');
    expect(
      await codeOf(await new SignJWT(own(globexIdp)).setProtectedHeader({ alg: 'ES256', typ: 'at+jwt' }).sign(keys.globex.privateKey)),
    ).toBe('admitted as globex');
  });
});

describe('forged tokens', () => {
  it('J1: no credential', async () => {
    expect(await codeOf(undefined)).toBe('missing_credentials');
    expect(await codeOf(undefined, ['authorization', 'Bearer '])).toBe('missing_credentials');
    expect(await codeOf(undefined, ['authorization', 'Bearer a b'])).toBe('missing_credentials');
    expect(await codeOf(undefined, ['authorization', 'Bearer x', 'Authorization', 'Bearer y'])).toBe('duplicate_credentials');
    expect(await codeOf('x', ['x-api-key', 'y'])).toBe('duplicate_credentials');
  });

  it.each(['none', 'None', 'NONE', 'nOnE', 'NoNe', 'nonE'])('J2: alg %s', async (alg) => {
    const [, payload] = segments(await platformToken());
    expect(await codeOf(`${encode({ alg, typ: 'at+jwt' })}.${payload}.`)).toBe('invalid_token');
    expect(await codeOf(`${encode({ alg, typ: 'at+jwt' })}.${payload}.AA`)).toBe('invalid_token');
  });

  it.each(['PEM', 'PEM without newline', 'DER'])('J3: HS256 keyed with the public key as %s', async (form) => {
    const pem = keys.platform.publicKey.export({ type: 'spki', format: 'pem' }).toString();
    const secret = form === 'DER' ? keys.platform.publicKey.export({ type: 'spki', format: 'der' }) : form === 'PEM' ? pem : pem.trimEnd();
    const [, payload] = segments(await platformToken());
    const signed = `${encode({ alg: 'HS256', typ: 'at+jwt' })}.${payload}`;
    expect(await codeOf(`${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`)).toBe('invalid_token');
  });

  it('J4, J5: signature stripped, or taken from another token', async () => {
    const [header, payload] = segments(await platformToken());
    const [, , other] = segments(await platformToken({ claims: { sub: 'bob' } }));
    for (const signature of ['', other, 'AAAA']) expect(await codeOf(`${header}.${payload}.${signature}`)).toBe('invalid_token');
  });

  it('J6: ES256 with r = s = 0', async () => {
    const now = Math.floor(clock.nowMs() / 1_000);
    const payload = encode({ iss: globexIdp, aud: 'bulkhead', sub: 'x', iat: now, exp: now + 600 });
    expect(await codeOf(`${encode({ alg: 'ES256', typ: 'at+jwt' })}.${payload}.${Buffer.alloc(64).toString('base64url')}`)).toBe(
      'invalid_token',
    );
  });

  it('J7: a key embedded in the token', async () => {
    const jwk = keys.attacker.publicKey.export({ format: 'jwk' });
    expect(await codeOf(await platformToken({ header: { jwk }, key: keys.attacker.privateKey }))).toBe('invalid_token');
  });

  it('J9: a tenant claim signed by another tenant’s own identity provider', async () => {
    const now = Math.floor(clock.nowMs() / 1_000);
    const claims = { iss: acmeIdp, aud: 'bulkhead', sub: 'mallory', iat: now, exp: now + 600, tenant_id: 'globex' };
    expect(await codeOf(await new SignJWT(claims).setProtectedHeader({ alg: 'EdDSA', typ: 'at+jwt' }).sign(keys.acme.privateKey))).toBe(
      'invalid_token',
    );
  });

  it.each(['https://id.example.com', 'https://ID.example.com/', 'https://id.exаmple.com/', 'https://evil.example/', ''])(
    'J10: issuer twin %j',
    async (iss) => {
      expect(await codeOf(await platformToken({ claims: { iss } }))).toBe('invalid_token');
    },
  );

  it('J11: the same kid in two issuers keeps each to its own key', async () => {
    const token = await platformToken({ header: { kid: 'shared' }, claims: { iss: globexIdp } });
    expect(await codeOf(token)).toBe('invalid_token');
  });

  it.each(['../../dev/null', "' OR 1=1 --", 'k'.repeat(10_240), 'a\0b', '', 7])('J12: hostile kid %j', async (kid) => {
    expect(await codeOf(await platformToken({ header: { kid: kid as string } }))).toBe('invalid_token');
  });

  it.each([['other'], [['other', 'another']], [undefined], [7]])('J13: audience %j', async (aud) => {
    expect(await codeOf(await platformToken({ claims: { aud: aud as string }, without: aud === undefined ? ['aud'] : [] }))).toBe(
      'invalid_token',
    );
  });

  it('J14: expired by 29 seconds is within the leeway, by 31 is not', async () => {
    const token = await platformToken();
    clock.advance(629_000);
    expect(await codeOf(token)).toBe('admitted as acme');
    clock.advance(2_000);
    expect(await codeOf(token)).toBe('token_expired');
  });

  it('J15, J16: from the future', async () => {
    const future = Math.floor(clock.nowMs() / 1_000) + 300;
    expect(await codeOf(await platformToken({ claims: { nbf: future } }))).toBe('invalid_token');
    expect(await codeOf(await platformToken({ claims: { iat: future, exp: future + 60 } }))).toBe('invalid_token');
  });

  it.each(['exp', 'iat', 'sub', 'iss'])('J17: without %s', async (name) => {
    expect(await codeOf(await platformToken({ without: [name] }))).toBe('invalid_token');
  });

  it.each(['2099-01-01', 1e308, -1, Number.MAX_SAFE_INTEGER])('J18: exp %j', async (exp) => {
    expect(await codeOf(await platformToken({ claims: { exp } }))).toBe(exp === -1 ? 'token_expired' : 'invalid_token');
  });

  it('lives no longer than the issuer may say', async () => {
    const now = Math.floor(clock.nowMs() / 1_000);
    expect(await codeOf(await platformToken({ claims: { exp: now + 3_600 } }))).toBe('admitted as acme');
    expect(await codeOf(await platformToken({ claims: { exp: now + 3_601 } }))).toBe('invalid_token');
  });

  it('J19: an unknown critical header', async () => {
    const [, payload] = segments(await platformToken());
    const signed = `${encode({ alg: 'RS256', typ: 'at+jwt', crit: ['x'], x: 1 })}.${payload}`;
    expect(await codeOf(`${signed}.AAAA`)).toBe('invalid_token');
  });

  it.each(['JWT', undefined, 'id_token', 7])('J20: typ %j', async (typ) => {
    expect(await codeOf(await platformToken({ header: { typ: typ as string } }))).toBe('invalid_token');
  });

  it('J21: a revoked subject, of whom newer tokens are good', async () => {
    const old = await platformToken();
    directory.epochs.set('acme ada', clock.nowMs());
    expect(await codeOf(old)).toBe('token_revoked');
    clock.advance(1_000);
    expect(await codeOf(await platformToken())).toBe('admitted as acme');
    expect(await codeOf(await platformToken({ claims: { sub: 'bob' } }))).toBe('admitted as acme');
  });

  it('J23: duplicate members, which parsers disagree about', async () => {
    const [header, payload, signature] = segments(await platformToken());
    const doubled = Buffer.from(payload, 'base64url').toString().replace('"sub":"ada"', '"sub":"ada","sub":"root"');
    expect(await codeOf(`${header}.${encode(doubled)}.${signature}`)).toBe('invalid_token');
    const doubledHeader = Buffer.from(header, 'base64url').toString().replace('{', '{"alg":"none",');
    expect(await codeOf(`${encode(doubledHeader)}.${payload}.${signature}`)).toBe('invalid_token');
  });

  it('J24: a token of 9 KB', async () => {
    expect(await codeOf(await platformToken({ claims: { padding: 'x'.repeat(9_000) } }))).toBe('invalid_token');
  });

  it('J25: an encrypted token', async () => {
    const jwe = await new CompactEncrypt(Buffer.from('{"sub":"x"}'))
      .setProtectedHeader({ alg: 'RSA-OAEP-256', enc: 'A256GCM' })
      .encrypt(keys.platform.publicKey);
    expect(await codeOf(jwe)).toBe('invalid_token');
  });

  it('refuses a tier the configuration does not have, and a tenant that is not there', async () => {
    expect(await codeOf(await platformToken({ claims: { tier: 'god' } }))).toBe('invalid_token');
    expect(await codeOf(await platformToken({ claims: { tenant_id: 'nobody' } }))).toBe('invalid_token');
    expect(await codeOf(await platformToken({ claims: { tenant_id: '../acme' } }))).toBe('invalid_token');
  });
});

describe('keys of an issuer over HTTP', () => {
  let server: Server;
  let requests: string[] = [];
  let answer: () => { readonly status: number; readonly headers?: Record<string, string>; readonly body: string };
  let url: string;
  beforeAll(async () => {
    server = createServer((request, response) => {
      requests.push(request.url ?? '');
      const { status, headers, body } = answer();
      response.writeHead(status, headers).end(body);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/jwks.json`;
  });
  afterAll(() => server.close());

  const jwkOf = (key: KeyObject, kid: string) => ({ ...createPublicKey(key).export({ format: 'jwk' }), kid, use: 'sig' });
  const jwks = (...entries: unknown[]) => ({ status: 200, body: JSON.stringify({ keys: entries }) });

  beforeEach(() => {
    requests = [];
    answer = () => jwks(jwkOf(keys.platform.privateKey, 'k1'));
    authenticator = openAuthenticator(openJwks(url, clock));
  });

  it('J8: never follows a URL from the token', async () => {
    const evil = url.replace('jwks.json', 'evil.json');
    for (const header of [{ jku: evil }, { x5u: evil }, { x5c: ['AAAA'] }]) {
      expect(await codeOf(await platformToken({ header: { ...header, kid: 'k1' }, key: keys.attacker.privateKey }))).toBe('invalid_token');
    }
    expect(requests.filter((path) => path.includes('evil'))).toEqual([]);
  });

  it('J22: after a rotation the new key is found and the old one is gone', async () => {
    expect(await codeOf(await platformToken({ header: { kid: 'k1' } }))).toBe('admitted as acme');
    answer = () => jwks(jwkOf(keys.attacker.privateKey, 'k2'));
    clock.advance(31_000);
    expect(await codeOf(await platformToken({ header: { kid: 'k2' }, key: keys.attacker.privateKey }))).toBe('admitted as acme');
    expect(await codeOf(await platformToken({ header: { kid: 'k1' }, claims: { sub: 'new' } }))).toBe('invalid_token');
  });

  it('J27: a flood of unknown kids costs one fetch in 30 seconds', async () => {
    for (let index = 0; index < 50; index++) {
      expect(await codeOf(await platformToken({ header: { kid: `unknown-${index}` } }))).toBe('invalid_token');
    }
    expect(requests).toHaveLength(1);
    clock.advance(30_001);
    await Promise.all(Array.from({ length: 20 }, async (_, index) => codeOf(await platformToken({ header: { kid: `later-${index}` } }))));
    expect(requests).toHaveLength(2);
  });

  it('keeps known keys for a day while the endpoint is broken, and learns nothing from it', async () => {
    expect(await codeOf(await platformToken({ header: { kid: 'k1' } }))).toBe('admitted as acme');
    answer = () => ({ status: 500, body: 'down' });
    clock.advance(11 * 60_000);
    expect(await codeOf(await platformToken({ header: { kid: 'k1' } }))).toBe('admitted as acme');
    clock.advance(24 * 3_600_000);
    expect(await codeOf(await platformToken({ header: { kid: 'k1' } }))).toBe('invalid_token');
  });

  it.each([
    ['5 MB', () => ({ status: 200, body: `{"keys":[],"x":"${'x'.repeat(5_000_000)}"}` })],
    ['1,000 keys', () => jwks(...Array.from({ length: 1_000 }, (_, index) => jwkOf(keys.platform.privateKey, `k${index}`)))],
    ['HTML', () => ({ status: 200, body: '<html>' })],
    ['a redirect', () => ({ status: 302, headers: { location: '/evil.json' }, body: '' })],
    ['a symmetric key', () => jwks({ kty: 'oct', k: 'AAAA', kid: 'k1' })],
  ])('is not fooled by an endpoint that answers %s', async (_, hostile) => {
    answer = hostile;
    expect(await codeOf(await platformToken({ header: { kid: 'k1' } }))).toBe('invalid_token');
    expect(requests).toEqual(['/jwks.json']);
  });

  it('is fetched over https, but for loopback', () => {
    expect(() => openJwks('http://id.example.com/jwks.json', clock)).toThrow(/https/);
  });
});

describe('API keys', () => {
  function issue(environment: 'live' | 'test' = 'live', expiresAtMs?: number) {
    const issued = issueApiKey(peppers, { tenantId: tenantId('acme'), name: 'test', environment, limits: {}, expiresAtMs });
    directory.keys.set(issued.record.id, { ...issued.record, createdAtMs: 0 });
    return issued;
  }

  it('are admitted, by every header a client may use', async () => {
    const { key } = issue();
    expect(await codeOf(key)).toBe('admitted as acme');
    expect(await codeOf(undefined, ['x-api-key', key])).toBe('admitted as acme');
    expect(await codeOf(undefined, ['api-key', key])).toBe('admitted as acme');
    expect(await codeOf(undefined, ['Authorization', `bEaReR ${key}`])).toBe('admitted as acme');
  });

  it('J26: wrong checksum costs no lookup; unknown, revoked, expired and test keys are refused alike', async () => {
    const { key, record } = issue();
    const last = key.endsWith('A') ? 'B' : 'A';
    expect(await codeOf(key.slice(0, -1) + last)).toBe('invalid_api_key');
    expect(directory.lookups).toBe(0);
    const unknown = issueApiKey(peppers, {
      tenantId: tenantId('acme'),
      name: 'x',
      environment: 'live',
      limits: {},
      expiresAtMs: undefined,
    });
    expect(await codeOf(unknown.key)).toBe('invalid_api_key');
    expect(await codeOf(issue('test').key)).toBe('invalid_api_key');
    expect(await codeOf(issue('live', clock.nowMs() - 1).key)).toBe('invalid_api_key');
    directory.keys.set(record.id, { ...record, createdAtMs: 0, revokedAtMs: 1 });
    expect(await codeOf(key)).toBe('invalid_api_key');
  });

  it('do not pass for another key with the same id', async () => {
    const { record } = issue();
    const forged = issueApiKey(peppers, {
      tenantId: tenantId('globex'),
      name: 'x',
      environment: 'live',
      limits: {},
      expiresAtMs: undefined,
    });
    directory.keys.set(forged.record.id, { ...record, id: forged.record.id, createdAtMs: 0 });
    expect(await codeOf(forged.key)).toBe('invalid_api_key');
  });

  it('J28: are refused in the query, whatever the parameter is called', async () => {
    const { key } = issue();
    expect(await codeOf(undefined, [], `api_key=${key}`)).toBe('credentials_in_query');
    expect(await codeOf(key, [], `innocent=${key}`)).toBe('credentials_in_query');
  });

  it.each(['x-tenant-id', 'X-Tenant', 'x-org-id'])('come with a tenant header %s that is refused', async (name) => {
    expect(await codeOf(issue().key, [name, 'globex'])).toBe('tenant_not_selectable');
    expect(await codeOf(issue().key, [], 'tenant_id=globex')).toBe('tenant_not_selectable');
  });

  it('of a suspended tenant are refused with 403, of a deleted one as unknown', async () => {
    const { key } = issue();
    directory.addTenant('acme', { state: 'suspended' });
    expect(await codeOf(key)).toBe('tenant_suspended');
    clock.advance(5_001);
    directory.addTenant('acme', { state: 'deleting' });
    expect(await codeOf(key)).toBe('invalid_api_key');
  });

  it('are looked up once in 30 seconds, and at once again after a change', async () => {
    const { key, record } = issue();
    await codeOf(key);
    const { lookups } = directory;
    await codeOf(key);
    expect(directory.lookups).toBe(lookups);
    authenticator.apply({ sequence: 1, kind: 'api-key', tenantId: tenantId('acme'), subjectId: record.id });
    directory.keys.set(record.id, { ...record, createdAtMs: 0, revokedAtMs: 1 });
    expect(await codeOf(key)).toBe('invalid_api_key');
  });

  it('verified while a revocation arrived are not kept', async () => {
    const { key, record } = issue();
    const find = directory.findApiKey.bind(directory);
    directory.findApiKey = async (id) => {
      const found = await find(id);
      authenticator.apply({ sequence: 1, kind: 'api-key', tenantId: tenantId('acme'), subjectId: record.id });
      return found;
    };
    await codeOf(key);
    directory.findApiKey = find;
    directory.keys.set(record.id, { ...record, createdAtMs: 0, revokedAtMs: 1 });
    expect(await codeOf(key)).toBe('invalid_api_key');
  });

  it('that share all but their last characters never share a cache slot', async () => {
    const { key } = issue();
    expect(await codeOf(key)).toBe('admitted as acme');
    for (const cut of [20, 40, key.length - 1]) expect(await codeOf(key.slice(0, cut))).toBe('invalid_api_key');
  });
});
