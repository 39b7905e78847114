/** Keys over HTTP and from files: what is believed, and the bounds on what an endpoint can do to us. */
import { createPublicKey, generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import type { ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type KeySource, openJwks, openKeyFile } from '../../src/auth/jwks-source.ts';
import { ManualClock } from '../../src/primitives/clock.ts';
import { JwksServer, jwkOf, keys, platformKeys } from './identity-world.ts';

const minuteMs = 60_000;
const first = platformKeys.RS256.publicKey;
const second = keys.attacker.publicKey;
const many = (count: number) => Array.from({ length: count }, (_, index) => jwkOf(first, `k${index}`));

let endpoint: JwksServer;
let clock: ManualClock;
let failures: string[];
let source: KeySource;
beforeAll(async () => {
  endpoint = await JwksServer.open();
});
beforeEach(() => {
  endpoint.requests.length = 0;
  endpoint.serve(jwkOf(first, 'k1'));
  clock = new ManualClock();
  failures = [];
  source = endpoint.source(clock, failures);
});
afterAll(() => endpoint[Symbol.asyncDispose]());

const finds = async (kid: string | undefined, algorithm: Parameters<KeySource['find']>[1] = 'RS256') =>
  (await source.find(kid, algorithm)) !== undefined;

describe('a JWKS endpoint', () => {
  it('is asked once for all who come together, and again after ten minutes', async () => {
    expect(await Promise.all(Array.from({ length: 50 }, () => finds('k1')))).toEqual(Array.from({ length: 50 }, () => true));
    clock.advance(10 * minuteMs - 1);
    await finds('k1');
    expect(endpoint.requests).toHaveLength(1);
    clock.advance(1);
    await finds('k1');
    expect(endpoint.requests).toHaveLength(2);
  });

  it.each<[string, string, (response: ServerResponse) => void]>([
    ['5 MB', 'the answer has more than 65536 bytes', (response) => response.end(`{"keys":[],"x":"${'x'.repeat(5_000_000)}"}`)],
    ['1,000 keys', 'the answer has more than 65536 bytes', (response) => response.end(JSON.stringify({ keys: many(1_000) }))],
    ['11 keys', 'the answer has more than 10 keys', (response) => response.end(JSON.stringify({ keys: many(11) }))],
    ['HTML', 'the answer is not JSON', (response) => response.writeHead(200, { 'content-type': 'text/html' }).end('<html>keys</html>')],
    ['nothing', 'the answer is not JSON', (response) => response.end()],
    ['null', 'the answer is not an object', (response) => response.end('null')],
    ['no list', 'the answer has no list of keys', (response) => response.end('{"keys":{"k1":{}}}')],
    ['500', 'the answer has status 500', (response) => response.writeHead(500).end(JSON.stringify({ keys: many(1) }))],
    ['a redirect', 'the answer has status 302', (response) => response.writeHead(302, { location: '/good.json' }).end()],
    ['a closed connection', 'UND_ERR_SOCKET', (response) => response.destroy()],
  ])('that answers %s is not believed', async (_, reason, answer) => {
    endpoint.answer = (response, request) => {
      if (request.url === '/good.json') response.end(JSON.stringify({ keys: many(1) }));
      else answer(response);
    };
    for (const kid of ['k0', 'k1', undefined]) expect(await finds(kid)).toBe(false);
    expect(endpoint.requests).toEqual(['/jwks.json']);
    expect(failures).toEqual([reason]);
  });

  it('is read to its bounds: ten keys, 64 KB', async () => {
    endpoint.serve(...many(10));
    expect(await finds('k9')).toBe(true);
    const padded = (length: number) => {
      const body = JSON.stringify({ keys: many(1), x: '' });
      return body.replace('"x":""', `"x":"${'x'.repeat(length - body.length)}"`);
    };
    for (const [length, isFound] of [[65_536, true] as const, [65_537, false] as const]) {
      source = endpoint.source(clock);
      endpoint.answer = (response) => response.end(padded(length));
      expect(padded(length)).toHaveLength(length);
      expect(await finds('k0')).toBe(isFound);
    }
  });

  it('that never finishes its answer is given up on after 3 seconds', async () => {
    let closed: Promise<unknown> = Promise.resolve();
    endpoint.answer = (response) => {
      closed = once(response, 'close');
      response.write('{"keys":[');
    };
    const startMs = performance.now();
    expect(await finds('k1')).toBe(false);
    expect(performance.now() - startMs).toBeGreaterThan(2_900);
    expect(failures).toEqual(['TimeoutError']);
    await closed;
  });

  it('that is broken leaves known keys good for a day, and makes no new ones', async () => {
    expect(await finds('k1')).toBe(true);
    endpoint.answer = (response) => response.writeHead(503).end();
    clock.advance(24 * 60 * minuteMs - 1);
    expect(await finds('k1')).toBe(true);
    expect(await finds('k2')).toBe(false);
    expect(endpoint.requests).toHaveLength(2);
    clock.advance(1);
    expect(await finds('k1')).toBe(false);
    endpoint.serve(jwkOf(first, 'k1'));
    clock.advance(30_000);
    expect(await finds('k1')).toBe(true);
  });

  it('may hold keys that nobody can use beside good ones', async () => {
    const privateJwk = platformKeys.ES256.privateKey.export({ format: 'jwk' });
    endpoint.serve(
      null,
      7,
      { kty: 'oct', k: 'AAAA', kid: 'k1' },
      { kty: 'RSA', kid: 'k1', n: 'AAAA' },
      { ...privateJwk, kid: 'es' },
      jwkOf(first, 'enc', { use: 'enc' }),
      jwkOf(first, 'ops', { key_ops: ['encrypt'] }),
      jwkOf(first, 'ps', { alg: 'PS256' }),
      jwkOf(first, 'k1', { use: 'sig', key_ops: ['verify'], alg: 'RS256' }),
    );
    expect(await finds('k1')).toBe(true);
    expect(await finds('k1', 'PS256')).toBe(false);
    expect(await finds('ps', 'PS256')).toBe(true);
    expect(await finds('ps')).toBe(false);
    for (const kid of ['enc', 'ops', 'es']) expect(await finds(kid, kid === 'es' ? 'ES256' : 'RS256')).toBe(false);
  });

  it('gives no key for an algorithm of another type', async () => {
    endpoint.serve(
      jwkOf(first, 'k'),
      jwkOf(platformKeys.ES256.publicKey, 'k'),
      jwkOf(platformKeys.EdDSA.publicKey, 'k', { alg: 'Ed25519' }),
    );
    for (const algorithm of ['RS256', 'PS256', 'ES256', 'EdDSA'] as const) {
      const found = await source.find('k', algorithm);
      expect(found?.asymmetricKeyType).toBe({ RS256: 'rsa', PS256: 'rsa', ES256: 'ec', EdDSA: 'ed25519' }[algorithm]);
    }
    const weak = generateKeyPairSync('rsa', { modulusLength: 1_024 }).publicKey;
    const otherCurve = generateKeyPairSync('ec', { namedCurve: 'P-384' }).publicKey;
    endpoint.serve(jwkOf(weak, 'weak'), jwkOf(otherCurve, 'curve'));
    clock.advance(30_000);
    expect(await finds('weak')).toBe(false);
    expect(await finds('curve', 'ES256')).toBe(false);
  });

  it('gives a key only where there is one answer', async () => {
    endpoint.serve(jwkOf(first, 'k1'), jwkOf(second, 'k2'));
    expect(await finds(undefined)).toBe(false);
    endpoint.serve(jwkOf(first, 'k1'), jwkOf(second, 'k1'));
    clock.advance(30_000);
    // Asking for a stranger is what brings the new list.
    for (const kid of ['stranger', 'k2', 'k1']) expect(await finds(kid)).toBe(false);
    endpoint.serve(jwkOf(first, undefined));
    clock.advance(10 * minuteMs);
    expect(await finds(undefined)).toBe(true);
    expect(await finds('any')).toBe(true);
  });

  it('is reached by https, or on this machine', () => {
    const url = (text: string) => () => openJwks(text, { clock });
    for (const text of [
      'https://id.example.com/jwks',
      'http://localhost:1/jwks',
      'http://127.0.0.1/jwks',
      'http://127.8.9.1/',
      'http://[::1]:1/jwks',
      'http://2130706433/',
    ]) {
      expect(url(text)).not.toThrow();
    }
    const elsewhere = [
      'http://id.example.com/jwks',
      'http://127.example.com/',
      'http://localhost.example.com/',
      'http://127.0.0.1.example/',
      'ftp://localhost/',
      'file:///etc/passwd',
    ];
    for (const text of elsewhere) expect(url(text)).toThrow(/https/);
    expect(url('https://user:secret@id.example.com/jwks')).toThrow(/credentials/);
  });
});

describe('a key file', () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'bulkhead-keys-'));
  });
  afterAll(() => rmSync(folder, { recursive: true }));
  const written = (name: string, text: string) => {
    const file = join(folder, name);
    writeFileSync(file, text);
    return file;
  };

  it('holds a PEM or a JWK, whatever kid a token names', async () => {
    const pem = written('a.pem', first.export({ type: 'spki', format: 'pem' }).toString());
    const jwk = written('a.json', JSON.stringify(jwkOf(platformKeys.EdDSA.publicKey, 'k1'), null, 2));
    const fromPem = openKeyFile(pem, ['RS256']);
    const fromJwk = openKeyFile(jwk, ['ES256', 'EdDSA']);
    expect((await fromPem.find('any', 'RS256'))?.equals(first)).toBe(true);
    expect((await fromJwk.find('any', 'EdDSA'))?.equals(createPublicKey(platformKeys.EdDSA.privateKey))).toBe(true);
    expect(await fromJwk.find(undefined, 'ES256')).toBeUndefined();
  });

  it('with a private key, with none, or with one of no use is refused at the start', () => {
    const { privateKey, publicKey } = platformKeys.ES256;
    expect(() => openKeyFile(written('private.pem', privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()), ['ES256'])).toThrow(
      /private key/,
    );
    expect(() => openKeyFile(written('private.json', JSON.stringify(privateKey.export({ format: 'jwk' }))), ['ES256'])).toThrow(
      /no public/,
    );
    expect(() => openKeyFile(written('empty.pem', ''), ['ES256'])).toThrow();
    expect(() =>
      openKeyFile(written('p256.pem', publicKey.export({ type: 'spki', format: 'pem' }).toString()), ['RS256', 'EdDSA']),
    ).toThrow(/fits none/);
    expect(() => openKeyFile(join(folder, 'absent.pem'), ['ES256'])).toThrow(/ENOENT/);
  });
});
