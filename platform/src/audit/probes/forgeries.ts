/** The list of forged tokens (isolation.md J2 to J25): each is one thing wrong with an otherwise good token of an issuer that is trusted. */
import { createHmac, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import type { CanaryIssuer } from '../audit-ports.ts';

export interface Forgery {
  readonly id: string;
  readonly attempt: string;
  readonly token: string;
}

type Fields = Readonly<Record<string, unknown>>;

export function claimsOf(issuer: CanaryIssuer, nowSeconds: number, changes: Fields = {}): Fields {
  return { iss: issuer.issuer, aud: issuer.audience, sub: 'auditor', iat: nowSeconds - 1, exp: nowSeconds + 300, ...changes };
}

export function headerOf(issuer: CanaryIssuer, changes: Fields = {}): Fields {
  return { alg: 'EdDSA', typ: 'at+jwt', kid: issuer.kid, ...changes };
}

/** The token that everything below is a forgery of. */
export function goodToken(issuer: CanaryIssuer, nowSeconds: number, changes: Fields = {}): string {
  return issuer.sign(headerOf(issuer), JSON.stringify(claimsOf(issuer, nowSeconds, changes)));
}

/** Tokens by which an attacker, holding its own issuer, would be the victim. */
export function impersonations(own: CanaryIssuer, victim: CanaryIssuer, claim: { readonly victimId: string; readonly nowSeconds: number }) {
  const { victimId, nowSeconds } = claim;
  const claims = (changes: Fields) => JSON.stringify(claimsOf(own, nowSeconds, changes));
  const forgeries: readonly Forgery[] = [
    { id: 'J9', attempt: 'the victim in the tenant claim', token: own.sign(headerOf(own), claims({ tenant_id: victimId })) },
    {
      id: 'J9',
      attempt: 'the victim in every claim',
      token: own.sign(headerOf(own), claims({ tenant_id: victimId, tenant: victimId, org: victimId })),
    },
    {
      id: 'J11',
      attempt: 'the victim’s issuer, one’s own key of the same id',
      token: own.sign(headerOf(own), claims({ iss: victim.issuer })),
    },
    {
      id: 'J5',
      attempt: 'the victim’s token with one’s own signature',
      token: resigned(goodToken(victim, nowSeconds), goodToken(own, nowSeconds)),
    },
  ];
  return forgeries;
}

/** Tokens that nobody may accept, whoever they name. */
export function forgeries(issuer: CanaryIssuer, nowSeconds: number): readonly Forgery[] {
  return [
    ...ofTheSignature(issuer, nowSeconds),
    ...ofTheHeader(issuer, nowSeconds),
    ...ofTheClaims(issuer, nowSeconds),
    ...ofTheForm(issuer, nowSeconds),
  ];
}

function ofTheSignature(issuer: CanaryIssuer, nowSeconds: number): readonly Forgery[] {
  const good = goodToken(issuer, nowSeconds);
  const [, body = '', signature = ''] = good.split('.');
  const other = goodToken(issuer, nowSeconds, { sub: 'other' });
  const unsigned = ['none', 'None', 'NONE', 'nOnE', 'NoNe', 'nonE'].map((alg) => ({
    id: 'J2',
    attempt: `alg ${alg}`,
    token: `${part({ alg, typ: 'at+jwt' })}.${body}.${signature}`,
  }));
  const publicKeys = [issuer.publicKeyPem, issuer.publicKeyPem.trimEnd(), Buffer.from(pemBody(issuer.publicKeyPem), 'base64')];
  const confused = publicKeys.map((secret, index) => ({
    id: 'J3',
    attempt: `HS256 with the public key (${['PEM', 'PEM without its last newline', 'DER'][index]})`,
    token: hmacToken({ alg: 'HS256', typ: 'at+jwt', kid: issuer.kid }, body, secret),
  }));
  return [
    ...unsigned,
    ...confused,
    { id: 'J4', attempt: 'no signature', token: `${good.split('.').slice(0, 2).join('.')}.` },
    { id: 'J4', attempt: 'two parts', token: good.split('.').slice(0, 2).join('.') },
    { id: 'J5', attempt: 'the signature of another token', token: resigned(good, other) },
    {
      id: 'J6',
      attempt: 'ES256 with r = s = 0',
      token: `${part({ alg: 'ES256', typ: 'at+jwt' })}.${body}.${Buffer.alloc(64).toString('base64url')}`,
    },
    { id: 'J6', attempt: 'a signature of zeros', token: `${good.split('.')[0]}.${body}.${Buffer.alloc(64).toString('base64url')}` },
  ];
}

function ofTheHeader(issuer: CanaryIssuer, nowSeconds: number): readonly Forgery[] {
  const pair = generateKeyPairSync('ed25519');
  const claims = JSON.stringify(claimsOf(issuer, nowSeconds));
  const foreign = (changes: Fields) => signedBy(pair.privateKey, headerOf(issuer, changes), claims);
  const own = (changes: Fields) => issuer.sign(headerOf(issuer, changes), claims);
  const kids = ['../../dev/null', "' OR 1=1 --", `a${'b'.repeat(10_240)}`, 'a\u0000b', 'unknown'];
  return [
    { id: 'J7', attempt: 'its own key in the header', token: foreign({ jwk: pair.publicKey.export({ format: 'jwk' }) }) },
    { id: 'J8', attempt: 'an address of keys in the header (jku)', token: foreign({ jku: 'https://attacker.invalid/keys' }) },
    { id: 'J8', attempt: 'an address of a certificate in the header (x5u)', token: foreign({ x5u: 'https://attacker.invalid/cert' }) },
    ...kids.map((kid) => ({ id: 'J12', attempt: `kid ${JSON.stringify(kid.slice(0, 20))}`, token: own({ kid }) })),
    { id: 'J19', attempt: 'an unknown critical extension', token: own({ crit: ['exp-beyond'], 'exp-beyond': true }) },
    { id: 'J20', attempt: 'an id token (typ JWT)', token: own({ typ: 'JWT' }) },
    { id: 'J20', attempt: 'no typ', token: own({ typ: undefined }) },
  ];
}

function ofTheClaims(issuer: CanaryIssuer, nowSeconds: number): readonly Forgery[] {
  const { issuer: name, audience } = issuer;
  const wrong: readonly (readonly [string, string, Fields])[] = [
    ['J10', 'iss with a slash behind it', { iss: `${name}/` }],
    ['J10', 'iss in upper case', { iss: name.toUpperCase() }],
    ['J10', 'iss with a letter that looks the same', { iss: name.replace('a', '\u0430') }],
    ['J13', 'another audience', { aud: `${audience}-other` }],
    ['J13', 'several other audiences', { aud: ['a', 'b'] }],
    ['J13', 'no audience', { aud: undefined }],
    ['J14', 'expired', { iat: nowSeconds - 400, exp: nowSeconds - 60 }],
    ['J15', 'not valid yet', { nbf: nowSeconds + 120 }],
    ['J16', 'issued in the future', { iat: nowSeconds + 120, exp: nowSeconds + 300 }],
    ['J17', 'no end', { exp: undefined }],
    ['J18', 'an end that is text', { exp: String(nowSeconds + 300) }],
    ['J18', 'an end of 1e308', { exp: 1e308 }],
    ['J18', 'a negative end', { exp: -1 }],
    ['J18', 'a life of a year', { exp: nowSeconds + 31_536_000 }],
  ];
  const sign = (claims: string) => issuer.sign(headerOf(issuer), claims);
  const twice = JSON.stringify(claimsOf(issuer, nowSeconds)).replace('"sub":"auditor"', '"sub":"auditor","sub":"admin"');
  return [
    ...wrong.map(([id, attempt, changes]) => ({ id, attempt, token: sign(JSON.stringify(claimsOf(issuer, nowSeconds, changes))) })),
    { id: 'J23', attempt: 'two subjects', token: sign(twice) },
  ];
}

function ofTheForm(issuer: CanaryIssuer, nowSeconds: number): readonly Forgery[] {
  const good = goodToken(issuer, nowSeconds);
  return [
    { id: 'J24', attempt: 'a token of 9 KB', token: goodToken(issuer, nowSeconds, { padding: 'x'.repeat(9_000) }) },
    { id: 'J25', attempt: 'a JWE', token: `${good}.${'a'.repeat(22)}.${'b'.repeat(22)}` },
  ];
}

function part(value: unknown): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url');
}

function hmacToken(header: Fields, body: string, secret: string | Buffer): string {
  const signed = `${part(header)}.${body}`;
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
}

function signedBy(key: KeyObject, header: Fields, claims: string): string {
  const signed = `${part(header)}.${Buffer.from(claims).toString('base64url')}`;
  return `${signed}.${sign(null, Buffer.from(signed), key).toString('base64url')}`;
}

function resigned(token: string, other: string): string {
  return `${token.split('.').slice(0, 2).join('.')}.${other.split('.')[2]}`;
}

function pemBody(pem: string): string {
  return pem.replaceAll(/-----[^-]+-----|\s/g, '');
}
