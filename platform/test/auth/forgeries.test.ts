/**
 * J1 to J28 of the forgery list: every way to an identity that is not one's own. Whatever can be signed is truly signed, so that the one thing
 * wrong is the thing named. Every refusal of the same kind shows the same.
 */
import { createHmac, randomBytes, sign } from 'node:crypto';
import { CompactEncrypt } from 'jose';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { openJwks } from '../../src/auth/jwks-source.ts';
import { startEdge } from '../bad-input/support/test-edge.ts';
import { tenantId } from '../support/embedded-database.ts';
import {
  acmeIdp,
  acmeToken,
  allAlgorithms,
  base64url,
  claimsOf,
  follow,
  globexIdp,
  globexToken,
  issueKey,
  JwksServer,
  jwkOf,
  keys,
  openWorld,
  operator,
  outcomeOf,
  platform,
  platformKeys,
  platformToken,
  segmentsOf,
  setState,
  signedText,
  type TokenChanges,
  trust,
  unknownKey,
  verdictOn,
  type World,
} from './identity-world.ts';

let world: World;
beforeEach(async () => {
  world = await openWorld();
});

const tokenWith = (changes?: TokenChanges) => platformToken(world.clock, changes);
const outcome = (credential: string | undefined, extra: readonly string[] = [], query = '') => outcomeOf(world, credential, extra, query);

/** Refused, in the words of every other token that is not valid. */
async function expectInvalid(token: string): Promise<void> {
  expect(await verdictOn(world, token)).toEqual({
    refused: 'invalid_token',
    shown: {
      status: 401,
      type: 'authentication_error',
      message: 'The token is not valid here.',
      param: null,
      rest: { details: undefined, headers: undefined, retryAfterMs: undefined },
    },
  });
}

describe('what is right', () => {
  it.each(allAlgorithms)('a platform token signed with %s is admitted as the tenant it names', async (alg) => {
    expect(await outcome(await tokenWith({ header: { alg } }))).toBe('admitted: acme');
    expect(await outcome(await tokenWith({ header: { alg }, claims: { tenant_id: 'globex' } }))).toBe('admitted: globex');
  });

  it.each(allAlgorithms)('a token of a tenant’s own identity provider signed with %s is admitted as that tenant', async (alg) => {
    const own = 'https://own.example/';
    const source = { find: async () => platformKeys[alg].publicKey };
    world = await openWorld({ issuers: () => [trust(own, { algorithms: [alg], keys: source, tenant: 'globex' })] });
    const claims = { iss: own, tenant_id: 'globex' };
    expect(await outcome(await tokenWith({ header: { alg }, claims }))).toBe('admitted: globex');
    expect(await outcome(await tokenWith({ header: { alg }, claims, without: ['tenant_id'] }))).toBe('admitted: globex');
  });

  it('a token names its user and, from the platform, its tier', async () => {
    const verdict = await verdictOn(world, await tokenWith({ claims: { tier: 'pro', sub: 'bob' } }));
    expect(verdict).toMatchObject({
      scope: { policy: { name: 'pro' }, principal: { user: 'bob', kind: 'jwt', keyId: `iss:${platform}` } },
    });
    expect(await verdictOn(world, await tokenWith())).toMatchObject({ scope: { policy: { name: 'free' } } });
  });

  it('the type is compared as RFC 9068 says', async () => {
    expect(await outcome(await tokenWith({ header: { typ: 'application/AT+JWT' } }))).toBe('admitted: acme');
  });
});

describe('forged tokens', () => {
  it('J1: no token', async () => {
    for (const extra of [
      [],
      ['authorization', ''],
      ['authorization', 'Bearer '],
      ['authorization', 'Bearer a b'],
      ['authorization', 'Basic YTpi'],
    ]) {
      expect(await outcome(undefined, extra)).toBe('missing_credentials');
    }
    expect(await outcome(undefined, ['x-api-key', ''])).toBe('missing_credentials');
  });

  it.each(['none', 'None', 'NONE', 'nOnE', 'NoNe', 'nonE'])('J2: alg %s', async (alg) => {
    const [, payload, signature] = segmentsOf(await tokenWith());
    const header = base64url(JSON.stringify({ alg, typ: 'at+jwt' }));
    for (const end of ['', 'AA', signature]) await expectInvalid(`${header}.${payload}.${end}`);
  });

  it.each(['PEM', 'PEM without newline', 'DER', 'JWK modulus'])('J3: HS256 keyed with the public key as %s', async (form) => {
    const { publicKey } = platformKeys.RS256;
    const pem = publicKey.export({ type: 'spki', format: 'pem' }).toString();
    const secret = {
      PEM: pem,
      'PEM without newline': pem.trimEnd(),
      DER: publicKey.export({ type: 'spki', format: 'der' }),
      'JWK modulus': Buffer.from(publicKey.export({ format: 'jwk' }).n ?? '', 'base64url'),
    }[form];
    const [, payload] = segmentsOf(await tokenWith());
    for (const [alg, digest] of [['HS256', 'sha256'] as const, ['HS512', 'sha512'] as const]) {
      const input = `${base64url(JSON.stringify({ alg, typ: 'at+jwt' }))}.${payload}`;
      await expectInvalid(
        `${input}.${createHmac(digest, secret ?? '')
          .update(input)
          .digest('base64url')}`,
      );
    }
  });

  it('J4: the signature stripped', async () => {
    const [header, payload] = segmentsOf(await tokenWith());
    for (const token of [`${header}.${payload}.`, `${header}.${payload}`, `${header}.${payload}..`]) await expectInvalid(token);
  });

  it('J5: the signature of another token', async () => {
    const [header, payload] = segmentsOf(await tokenWith());
    const [, , signature] = segmentsOf(await tokenWith({ claims: { tenant_id: 'globex' } }));
    await expectInvalid(`${header}.${payload}.${signature}`);
    // And the signature of another algorithm with the same key.
    const [, , pss] = segmentsOf(await tokenWith({ header: { alg: 'PS256' } }));
    await expectInvalid(`${header}.${payload}.${pss}`);
  });

  it('J6: ES256 with r = s = 0, with r and s out of range, and in DER', async () => {
    const [header, payload, signature] = segmentsOf(await globexToken(world.clock));
    expect(await outcome(`${header}.${payload}.${signature}`)).toBe('admitted: globex');
    const der = sign('sha256', Buffer.from(`${header}.${payload}`), keys.globex.privateKey);
    for (const forged of [Buffer.alloc(64), Buffer.alloc(64, 255), Buffer.alloc(0), der]) {
      await expectInvalid(`${header}.${payload}.${forged.toString('base64url')}`);
    }
  });

  it('J7: a key embedded in the token', async () => {
    const jwk = keys.attacker.publicKey.export({ format: 'jwk' });
    await expectInvalid(await tokenWith({ header: { jwk }, key: keys.attacker.privateKey }));
    expect(await outcome(await tokenWith({ header: { jwk } }))).toBe('admitted: acme');
  });

  it('J9: the tenant claim of B signed by A’s identity provider', async () => {
    expect(await outcome(await acmeToken(world.clock, { tenant_id: 'acme' }))).toBe('admitted: acme');
    for (const tenant of ['globex', 'nobody', 'ACME', '', null, ['acme'], { acme: 1 }]) {
      await expectInvalid(await acmeToken(world.clock, { tenant_id: tenant }));
    }
  });

  it('J9: a tier claimed by a tenant’s own identity provider does not count', async () => {
    expect(await verdictOn(world, await acmeToken(world.clock, { tier: 'pro' }))).toMatchObject({ scope: { policy: { name: 'free' } } });
  });

  it.each([
    'https://id.example.com',
    'https://ID.example.com/',
    'https://id.exаmple.com/',
    ' https://id.example.com/',
    'https://id.example.com/\0',
    '',
    7,
    null,
    [platform],
    '__proto__',
  ])('J10: the issuer’s twin %j', async (iss) => {
    await expectInvalid(await tokenWith({ claims: { iss } }));
  });

  it.each(['../../dev/null', "' OR 1=1 --", 'k'.repeat(129), 'k'.repeat(10_240), 'a\0b', 'k\n', '', 7, null, ['k']])(
    'J12: hostile kid %j',
    async (kid) => {
      await expectInvalid(await tokenWith({ header: { kid } }));
    },
  );

  it('J12: a kid of 128 characters is none too long', async () => {
    expect(await outcome(await tokenWith({ header: { kid: 'k'.repeat(128) } }))).toBe('admitted: acme');
  });

  it.each([
    ['other'],
    [['other', 'another']],
    [undefined],
    [7],
    [[]],
    [['bulkhead', 7]],
    [null],
    [Array.from({ length: 17 }, () => 'bulkhead')],
  ])('J13: audience %j', async (aud) => {
    await expectInvalid(await tokenWith(aud === undefined ? { without: ['aud'] } : { claims: { aud } }));
  });

  it('J13: ours may be one of several', async () => {
    expect(await outcome(await tokenWith({ claims: { aud: ['other', 'bulkhead'] } }))).toBe('admitted: acme');
  });

  it('J14: expired by 29 seconds is within the leeway, by 31 is not', async () => {
    const token = await tokenWith();
    world.clock.advance(629_000);
    expect(await outcome(token)).toBe('admitted: acme');
    world.clock.advance(2_000);
    expect(await outcome(token)).toBe('token_expired');
  });

  it('J15: nbf in the future', async () => {
    const now = Math.floor(world.clock.nowMs() / 1_000);
    expect(await outcome(await tokenWith({ claims: { nbf: now + 29 } }))).toBe('admitted: acme');
    for (const nbf of [now + 31, now + 300, String(now), null, 1e308, Number.MAX_VALUE])
      await expectInvalid(await tokenWith({ claims: { nbf } }));
  });

  it('J16: iat in the future', async () => {
    const now = Math.floor(world.clock.nowMs() / 1_000);
    expect(await outcome(await tokenWith({ claims: { iat: now + 29, exp: now + 60 } }))).toBe('admitted: acme');
    await expectInvalid(await tokenWith({ claims: { iat: now + 31, exp: now + 60 } }));
  });

  it.each(['exp', 'iat', 'sub', 'iss', 'aud', 'tenant_id'])('J17: without %s', async (name) => {
    await expectInvalid(await tokenWith({ without: [name] }));
  });

  it.each(['exp', 'iat'])('J18: %s as text, beyond all time, negative, or nothing', async (name) => {
    for (const value of [
      '2099-01-01',
      String(Math.floor(world.clock.nowMs() / 1_000) + 60),
      1e308,
      -1,
      0,
      null,
      true,
      Number.MAX_SAFE_INTEGER,
    ]) {
      await expectInvalid(await tokenWith({ claims: { [name]: value } }));
    }
  });

  it('J18: 1e999, which parsers read as infinity', async () => {
    const claims = JSON.stringify({ ...claimsOf(world.clock, platform), tenant_id: 'acme' });
    const rightHeader = '{"alg":"RS256","typ":"at+jwt"}';
    expect(await outcome(signedText(rightHeader, claims))).toBe('admitted: acme');
    await expectInvalid(signedText(rightHeader, claims.replace(/"exp":\d+/, '"exp":1e999')));
  });

  it('a token lives as long as its issuer may grant, and no second longer', async () => {
    const now = Math.floor(world.clock.nowMs() / 1_000);
    expect(await outcome(await tokenWith({ claims: { exp: now + 3_600 } }))).toBe('admitted: acme');
    await expectInvalid(await tokenWith({ claims: { exp: now + 3_601 } }));
    await expectInvalid(await tokenWith({ claims: { exp: now } }));
  });

  it.each([
    ['{"alg":"RS256","typ":"at+jwt","crit":["x"],"x":1}'],
    ['{"alg":"RS256","typ":"at+jwt","crit":[]}'],
    ['{"alg":"RS256","typ":"at+jwt","crit":["b64"],"b64":true}'],
  ])('J19: a critical header nobody knows: %s', async (header) => {
    await expectInvalid(signedText(header, JSON.stringify({ ...claimsOf(world.clock, platform), tenant_id: 'acme' })));
  });

  it.each(['JWT', undefined, 'id_token', 'at+jwt ', '', 7, null, 'secevent+jwt'])(
    'J20: an id token or another thing with typ %j',
    async (typ) => {
      const header = typ === undefined ? '{"alg":"RS256"}' : JSON.stringify({ alg: 'RS256', typ });
      await expectInvalid(signedText(header, JSON.stringify({ ...claimsOf(world.clock, platform), tenant_id: 'acme' })));
    },
  );

  it('J23: members twice, in header and payload, on top and below, plain and escaped', async () => {
    const header = '{"alg":"RS256","typ":"at+jwt"}';
    const payload = JSON.stringify({ ...claimsOf(world.clock, platform), tenant_id: 'acme', deep: { a: 1 } });
    expect(await outcome(signedText(header, payload))).toBe('admitted: acme');
    for (const [from, to] of [
      ['"sub":"ada"', '"sub":"ada","sub":"root"'],
      ['"tenant_id":"acme"', '"tenant_id":"globex","tenant_id":"acme"'],
      ['"sub":"ada"', '"sub":"ada","s\\u0075b":"ada"'],
      ['{"a":1}', '{"a":1,"a":1}'],
      ['{"a":1}', '[{"b":[{"a":1,"a":2}]}]'],
    ] as const) {
      expect(payload).toContain(from);
      await expectInvalid(signedText(header, payload.replace(from, to)));
    }
    await expectInvalid(signedText('{"alg":"RS256","alg":"RS256","typ":"at+jwt"}', payload));
  });

  it('J24: a token of 9 KB', async () => {
    const padded = async (length: number) => tokenWith({ claims: { padding: 'x'.repeat(length) } });
    const empty = (await padded(0)).length;
    // Three characters of payload are four of the token.
    const largest = Math.floor(((8_192 - empty) * 3) / 4) - 2;
    expect((await padded(largest)).length).toBeGreaterThan(8_185);
    expect(await outcome(await padded(largest))).toBe('admitted: acme');
    await expectInvalid(await padded(largest + 6));
    await expectInvalid(await padded(9_000));
  });

  it('J25: a JWE instead of a JWS', async () => {
    const jwe = (plain: string, more: object) =>
      new CompactEncrypt(Buffer.from(plain))
        .setProtectedHeader({ alg: 'RSA-OAEP-256', enc: 'A256GCM', ...more })
        .encrypt(platformKeys.RS256.publicKey);
    await expectInvalid(await jwe(JSON.stringify({ ...claimsOf(world.clock, platform), tenant_id: 'acme' }), { typ: 'at+jwt' }));
    await expectInvalid(await jwe(await tokenWith(), { cty: 'JWT', typ: 'at+jwt' }));
  });

  it('a platform token for a tenant that is not there, is being deleted, or cannot be, is refused alike', async () => {
    await setState(world, 'globex', 'deleting');
    for (const tenant of ['nobody', 'globex', '../acme', 'ACME', 'acme ', '', 7, null, ['acme']]) {
      await expectInvalid(await tokenWith({ claims: { tenant_id: tenant } }));
    }
  });

  it('a tier that is not configured is refused, whatever form it has', async () => {
    for (const tier of ['god', '', '__proto__', 7, null, ['pro']]) await expectInvalid(await tokenWith({ claims: { tier } }));
  });

  it('names that a database or a log could not carry are refused', async () => {
    expect(await outcome(await tokenWith({ claims: { sub: 'Ünï💥 汉'.padEnd(256, 'x') } }))).toBe('admitted: acme');
    for (const sub of ['', 'a\0b', 'a\nb', '\u009b31m', '\ud800', 'x'.repeat(257), 7, null, ['ada']])
      await expectInvalid(await tokenWith({ claims: { sub } }));
  });

  it('bytes that are no token at all are refused', async () => {
    const [header, payload, signature] = segmentsOf(await tokenWith());
    const hostile = ['.', '..', '...', 'ey.ey.ey', `${header}.${payload}.${signature}.`, `${header}.${payload}=.${signature}`];
    for (const token of hostile) expect(await outcome(token)).toMatch(/^(invalid_token|missing_credentials)$/);
    for (let count = 0; count < 50; count++) {
      const noise = Array.from({ length: 3 }, () => randomBytes(40).toString('base64url')).join('.');
      await expectInvalid(noise);
    }
    for (const json of ['[]', 'null', '"x"', '{', '1', '']) await expectInvalid(`${header}.${base64url(json)}.${signature}`);
    await expectInvalid(signedText('{"alg":"RS256","typ":"at+jwt"}', '['.repeat(5_000) + ']'.repeat(5_000)));
    await expectInvalid(
      signedText('{"alg":"RS256","typ":"at+jwt"}', `{"iss":${JSON.stringify(platform)},"x":${'['.repeat(2_500)}${']'.repeat(2_500)}}`),
    );
  });
});

describe('keys that issuers publish', () => {
  let endpoint: JwksServer;
  beforeAll(async () => {
    endpoint = await JwksServer.open();
  });
  beforeEach(async () => {
    endpoint.requests.length = 0;
    endpoint.serve(jwkOf(platformKeys.RS256.publicKey, 'k1'));
    world = await openWorld({
      issuers: (fixed, clock) => [trust(platform, { algorithms: ['RS256'], keys: endpoint.source(clock) }), ...fixed.slice(1)],
    });
  });
  afterAll(() => endpoint[Symbol.asyncDispose]());

  it('J8: a URL in the token is never fetched, and costs no fetch of any kind', async () => {
    await using attacker = await JwksServer.open();
    attacker.serve(jwkOf(keys.attacker.publicKey, 'k1'));
    expect(await outcome(await tokenWith({ header: { kid: 'k1' } }))).toBe('admitted: acme');
    expect(endpoint.requests).toEqual(['/jwks.json']);
    for (const header of [
      { jku: attacker.url() },
      { x5u: attacker.url('/x.pem') },
      { x5c: ['AAAA'] },
      { jku: attacker.url(), x5u: attacker.url() },
    ]) {
      await expectInvalid(await tokenWith({ header: { ...header, kid: 'k1' }, key: keys.attacker.privateKey }));
    }
    await expectInvalid(await tokenWith({ claims: { iss: attacker.url('/') }, key: keys.attacker.privateKey }));
    expect(attacker.requests).toEqual([]);
    expect(endpoint.requests).toEqual(['/jwks.json']);
  });

  it('J10: an unknown issuer costs no fetch', async () => {
    await expectInvalid(await tokenWith({ claims: { iss: 'https://evil.example/' } }));
    await expectInvalid(await tokenWith({ claims: { iss: platform.slice(0, -1) } }));
    expect(endpoint.requests).toEqual([]);
  });

  it('J11: the same kid in two issuers keeps each to its own key', async () => {
    await using acmeEndpoint = await JwksServer.open();
    acmeEndpoint.serve(jwkOf(keys.attacker.publicKey, 'k1'));
    world = await openWorld({
      issuers: (_, clock) => [
        trust(platform, { algorithms: ['RS256'], keys: endpoint.source(clock) }),
        trust(acmeIdp, { algorithms: ['RS256'], keys: openJwks(acmeEndpoint.url(), { clock }), tenant: 'acme' }),
      ],
    });
    const header = { kid: 'k1' };
    expect(await outcome(await tokenWith({ header }))).toBe('admitted: acme');
    const ofAcme = { header, claims: { iss: acmeIdp }, without: ['tenant_id'] };
    expect(await outcome(await tokenWith({ ...ofAcme, key: keys.attacker.privateKey }))).toBe('admitted: acme');
    await expectInvalid(await tokenWith({ header, key: keys.attacker.privateKey }));
    await expectInvalid(await tokenWith(ofAcme));
    await expectInvalid(await tokenWith({ header, claims: { iss: globexIdp }, key: keys.attacker.privateKey }));
  });

  it('J22: after a rotation the new key is found at once, and the old one is gone', async () => {
    expect(await outcome(await tokenWith({ header: { kid: 'k1' } }))).toBe('admitted: acme');
    endpoint.serve(jwkOf(keys.attacker.publicKey, 'k2'));
    world.clock.advance(30_000);
    const rotated = await tokenWith({ header: { kid: 'k2' }, key: keys.attacker.privateKey });
    expect(await outcome(rotated)).toBe('admitted: acme');
    await expectInvalid(await tokenWith({ header: { kid: 'k1' }, claims: { sub: 'bob' } }));
  });

  it('J22: a key that is withdrawn is refused within ten minutes and a half, though nobody asks for a new one', async () => {
    expect(await outcome(await tokenWith({ header: { kid: 'k1' } }))).toBe('admitted: acme');
    endpoint.serve();
    world.clock.advance(10 * 60_000 + 30_000);
    await expectInvalid(await tokenWith({ header: { kid: 'k1' } }));
  });

  it('J27: a flood of unknown kids costs one fetch in 30 seconds', async () => {
    const flood = (round: string) =>
      Promise.all(Array.from({ length: 50 }, async (_, index) => outcome(await tokenWith({ header: { kid: `${round}-${index}` } }))));
    expect(new Set(await flood('first'))).toEqual(new Set(['invalid_token']));
    expect(endpoint.requests).toHaveLength(1);
    world.clock.advance(29_999);
    await flood('second');
    expect(endpoint.requests).toHaveLength(1);
    world.clock.advance(1);
    await flood('third');
    expect(endpoint.requests).toHaveLength(2);
  });

  it('J27: the flood does not keep out those whose key is known', async () => {
    await outcome(await tokenWith({ header: { kid: 'unknown' } }));
    expect(await outcome(await tokenWith({ header: { kid: 'k1' } }))).toBe('admitted: acme');
    expect(endpoint.requests).toHaveLength(1);
  });
});

describe('revoked subjects', () => {
  it('J21: tokens from before the revocation are refused, newer ones and those of others are not', async () => {
    const old = await tokenWith();
    expect(await outcome(old)).toBe('admitted: acme');
    await world.directory.revokeSubject(operator, tenantId('acme'), 'ada');
    await follow(world);
    expect(await outcome(old)).toBe('token_revoked');
    expect(await outcome(await tokenWith({ claims: { sub: 'bob' } }))).toBe('admitted: acme');
    expect(await outcome(await tokenWith({ claims: { tenant_id: 'globex' } }))).toBe('admitted: globex');
    world.clock.advance(1_000);
    expect(await outcome(await tokenWith())).toBe('admitted: acme');
    world.clock.advance(6_000);
    expect(await outcome(old)).toBe('token_revoked');
  });

  it('J21: the whole tenant, whichever issuer signed', async () => {
    const tokens = [await tokenWith(), await tokenWith({ claims: { sub: 'bob' } }), await acmeToken(world.clock)];
    await world.directory.revokeSubject(operator, tenantId('acme'));
    for (const token of tokens) expect(await outcome(token)).toBe('token_revoked');
    expect(await outcome(await globexToken(world.clock))).toBe('admitted: globex');
  });

  it.each(['ada', 'ada@acme.example'])('J21: by the subject or by the user claim: %s', async (named) => {
    world = await openWorld({
      issuers: () => [
        trust(platform, { algorithms: ['RS256'], keys: { find: async () => platformKeys.RS256.publicKey }, userClaim: 'email' }),
      ],
    });
    const token = await tokenWith({ claims: { email: 'ada@acme.example' } });
    expect(await verdictOn(world, token)).toMatchObject({ scope: { principal: { user: 'ada@acme.example' } } });
    await world.directory.revokeSubject(operator, tenantId('acme'), named);
    await follow(world);
    expect(await outcome(token)).toBe('token_revoked');
  });

  it('J21: that a subject was revoked is told to those alone who hold a true token', async () => {
    await world.directory.revokeSubject(operator, tenantId('acme'), 'ada');
    await expectInvalid(await tokenWith({ key: keys.attacker.privateKey }));
  });
});

describe('API keys', () => {
  const invalid = {
    refused: 'invalid_api_key',
    shown: {
      status: 401,
      type: 'authentication_error',
      message: 'The API key is not valid.',
      param: null,
      rest: { details: undefined, headers: undefined, retryAfterMs: undefined },
    },
  };

  it('J26: a wrong checksum, form or alphabet costs no lookup', async () => {
    const { key } = await issueKey(world);
    const other = key.endsWith('A') ? 'B' : 'A';
    const forms = [
      key.slice(0, -1) + other,
      key.slice(0, -1),
      `${key}A`,
      key.toUpperCase(),
      key.replace('live', 'test'),
      `${key}\n`,
      ` ${key}`,
      'bh_live_',
      'sk-abc',
    ];
    for (const form of forms) expect(await verdictOn(world, undefined, ['x-api-key', form])).toEqual(invalid);
    expect(world.directory.lookups).toBe(0);
    expect(await outcome(key)).toBe('admitted: acme');
  });

  it('J26: unknown, revoked, expired, of another environment, of a tenant that is gone: all refused alike', async () => {
    const revoked = await issueKey(world);
    await world.directory.revokeApiKey(operator, tenantId('acme'), revoked.record.id);
    const ofGone = await issueKey(world, { tenant: 'globex' });
    await setState(world, 'globex', 'deleting');
    const expired = await issueKey(world, { expiresAtMs: world.clock.nowMs() });
    const test = await issueKey(world, { environment: 'test' });
    for (const key of [unknownKey(), revoked.key, expired.key, test.key, ofGone.key]) expect(await verdictOn(world, key)).toEqual(invalid);
  });

  it('J26: another secret for a known id', async () => {
    const { record } = await issueKey(world);
    const stranger = unknownKey();
    const id = stranger.slice('bh_live_'.length, 'bh_live_'.length + 8);
    await world.directory.createApiKey(operator, { ...record, id });
    expect(await verdictOn(world, stranger)).toEqual(invalid);
  });

  it('J26: a digest of another length, or under a pepper that is gone, matches nothing', async () => {
    const { key, record } = await issueKey(world);
    expect(await outcome(key)).toBe('admitted: acme');
    const ids = { id: '' };
    for (const change of [{ digest: new Uint8Array() }, { digest: new Uint8Array(32) }, { pepperVersion: 9 }, { pepperVersion: 1 }]) {
      const stranger = unknownKey();
      ids.id = stranger.slice(8, 16);
      await world.directory.createApiKey(operator, { ...record, ...ids, ...change });
      expect(await verdictOn(world, stranger)).toEqual(invalid);
    }
  });

  it('J28: are refused in the query, by the name of the parameter or the form of the value', async () => {
    const { key } = await issueKey(world);
    const token = await tokenWith();
    for (const query of [`api_key=${key}`, 'API_KEY=x', 'access_token=x', `innocent=${key}`, `innocent=${token}`, `a=b&key=${key}`]) {
      expect(await outcome(undefined, [], query)).toBe('credentials_in_query');
      expect(await outcome(key, [], query)).toBe('credentials_in_query');
    }
    expect(await outcome(key, [], 'limit=10&after=file-1.2.3&order=desc')).toBe('admitted: acme');
  });
});

describe('J28 at the edge', () => {
  const edges: AsyncDisposable[] = [];
  afterEach(async () => {
    for (const edge of edges.splice(0)) await edge[Symbol.asyncDispose]();
  });

  it('a key in the query is neither answered back nor logged', async () => {
    const { key } = await issueKey(world);
    const edge = await startEdge();
    edges.push(edge);
    const answer = await fetch(`${edge.url}/v1/echo/1?api_key=${key}`);
    const body = await answer.text();
    expect({ status: answer.status, body }).toMatchObject({ status: 400, body: expect.stringContaining('credentials_in_query') });
    await expect.poll(() => edge.log.length).toBeGreaterThan(0);
    expect(body + JSON.stringify(edge.log) + JSON.stringify([...answer.headers])).not.toContain(key.slice(8));
  });
});
