/**
 * Where an issuer's public keys come from: a file, or a JWKS (RFC 7517) over HTTP. A fetch is bounded (https, no redirect, 3 s, 64 KB, 10 keys),
 * single flight, at most one in 30 s, whatever key ids tokens name. Known keys outlive a broken endpoint for 24 h; unknown ones are never made up.
 */
import { createPublicKey, type KeyObject } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { isIPv4 } from 'node:net';
import { request } from 'undici';
import type { Clock } from '../primitives/clock.ts';

export interface KeySource {
  /** The key of this id that fits the algorithm's type; without an id, the only key there is. Undefined: none, or not unambiguous. */
  find(kid: string | undefined, algorithm: SignatureAlgorithm): Promise<KeyObject | undefined>;
}

export type SignatureAlgorithm = 'RS256' | 'PS256' | 'ES256' | 'EdDSA';

export interface JwksOptions {
  readonly clock: Clock;
  /** Told why a fetch failed; tokens learn nothing of it. */
  readonly onFailure?: (reason: string) => void;
}

const bytesMax = 65_536;
const keysMax = 10;
const timeoutMs = 3_000;
const cooldownMs = 30_000;
const freshMs = 10 * 60_000;
const staleMs = 24 * 3_600_000;

type JsonWebKeyObject = Readonly<Record<string, unknown>>;

interface KnownKey {
  readonly kid: string | undefined;
  /** The JWK's own `alg`: a key that names one is for that alone. */
  readonly algorithm: string | undefined;
  readonly key: KeyObject;
}

/** A PEM (SPKI) or JWK file, read once. Throws when it holds a private key, no key, or one that none of the algorithms can use. */
export function openKeyFile(file: string, algorithms: readonly SignatureAlgorithm[]): KeySource {
  const known = readKeyFile(file);
  if (!algorithms.some((algorithm) => fits(known, algorithm))) {
    throw new Error(`the key in ${file} fits none of ${algorithms.join(', ')} (RSA needs ${rsaBitsMin} to ${rsaBitsMax} bits)`);
  }
  return { find: async (_, algorithm) => pick([known], undefined, algorithm) };
}

/** Throws for a URL that is not https (or http to this machine), and for one with a password in it. */
export function openJwks(url: string, options: JwksOptions): KeySource {
  const { protocol, hostname, username, password } = new URL(url);
  if (protocol !== 'https:' && !(protocol === 'http:' && isLoopback(hostname))) throw new Error('a JWKS is fetched over https');
  if (username !== '' || password !== '') throw new Error('the address of a JWKS has no credentials in it');
  return new JwksSource(url, options);
}

/** By address: `127.example.com` is somebody's host. */
function isLoopback(hostname: string): boolean {
  return hostname === 'localhost' || hostname === '[::1]' || (isIPv4(hostname) && hostname.startsWith('127.'));
}

class JwksSource implements KeySource {
  readonly #url: string;
  readonly #options: JwksOptions;
  #keys: readonly KnownKey[] = [];
  #fetchedAtMs = Number.NEGATIVE_INFINITY;
  #triedAtMs = Number.NEGATIVE_INFINITY;
  #running: Promise<void> | undefined;

  constructor(url: string, options: JwksOptions) {
    this.#url = url;
    this.#options = options;
  }

  async find(kid: string | undefined, algorithm: SignatureAlgorithm): Promise<KeyObject | undefined> {
    const known = this.#known(kid, algorithm);
    if (known !== undefined && this.#ageMs() < freshMs) return known;
    await this.#refresh();
    return this.#known(kid, algorithm);
  }

  #known(kid: string | undefined, algorithm: SignatureAlgorithm): KeyObject | undefined {
    return this.#ageMs() < staleMs ? pick(this.#keys, kid, algorithm) : undefined;
  }

  #ageMs(): number {
    return this.#options.clock.monotonicMs() - this.#fetchedAtMs;
  }

  #refresh(): Promise<void> {
    if (this.#running !== undefined) return this.#running;
    const { clock } = this.#options;
    if (clock.monotonicMs() - this.#triedAtMs < cooldownMs) return Promise.resolve();
    this.#triedAtMs = clock.monotonicMs();
    this.#running = this.#fetch().finally(() => {
      this.#running = undefined;
    });
    return this.#running;
  }

  /** Never rejects: what is known stays good for a day, and nothing new is believed. */
  async #fetch(): Promise<void> {
    const { clock, onFailure } = this.#options;
    try {
      this.#keys = await fetchKeys(this.#url);
      this.#fetchedAtMs = clock.monotonicMs();
    } catch (error) {
      onFailure?.(reasonOf(error));
    }
  }
}

/** Why a fetch failed, in our own words. */
class JwksError extends Error {}

async function fetchKeys(url: string): Promise<readonly KnownKey[]> {
  const answer = await request(url, {
    signal: AbortSignal.timeout(timeoutMs),
    headers: { accept: 'application/json' },
    // One fetch in ten minutes: a connection kept open would only hold up the end of the process.
    reset: true,
  });
  if (answer.statusCode !== 200) {
    // Destroyed unread it emits an error, and one that nobody hears ends the process.
    answer.body.on('error', () => {}).destroy();
    throw new JwksError(`the answer has status ${answer.statusCode}`);
  }
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const part of answer.body as AsyncIterable<Buffer>) {
    bytes += part.length;
    if (bytes > bytesMax) throw new JwksError(`the answer has more than ${bytesMax} bytes`);
    parts.push(part);
  }
  return importKeys(Buffer.concat(parts).toString('utf8'));
}

function importKeys(text: string): readonly KnownKey[] {
  const { keys } = parseObject(text);
  if (!Array.isArray(keys)) throw new JwksError('the answer has no list of keys');
  if (keys.length > keysMax) throw new JwksError(`the answer has more than ${keysMax} keys`);
  return keys.flatMap(importKey);
}

function parseObject(text: string): JsonWebKeyObject {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new JwksError('the answer is not JSON');
  }
  if (typeof value !== 'object' || value === null) throw new JwksError('the answer is not an object');
  return value as JsonWebKeyObject;
}

/** What cannot be used is left out: one unreadable key does not make the others worse. */
function importKey(entry: unknown): KnownKey[] {
  if (typeof entry !== 'object' || entry === null) return [];
  const jwk = entry as JsonWebKeyObject;
  const { kty, kid, alg, use, key_ops: operations } = jwk;
  const isForSigning = (use === undefined || use === 'sig') && (!Array.isArray(operations) || operations.includes('verify'));
  if (!isForSigning || typeof kty !== 'string' || !['RSA', 'EC', 'OKP'].includes(kty) || 'd' in jwk) return [];
  try {
    const key = createPublicKey({ key: jwk as never, format: 'jwk' });
    return [{ kid: typeof kid === 'string' ? kid : undefined, algorithm: typeof alg === 'string' ? alg : undefined, key }];
  } catch {
    return [];
  }
}

function readKeyFile(file: string): KnownKey {
  const text = readFileSync(file, 'utf8');
  if (text.includes('PRIVATE KEY')) throw new Error(`${file} holds a private key; only the public one belongs here`);
  if (!text.trimStart().startsWith('{')) return { kid: undefined, algorithm: undefined, key: createPublicKey(text) };
  const [known] = importKey(parseObject(text));
  if (known === undefined) throw new Error(`${file} holds no public signing key`);
  // The operator chose this one key: the name a token gives it does not matter.
  return { ...known, kid: undefined };
}

function pick(keys: readonly KnownKey[], kid: string | undefined, algorithm: SignatureAlgorithm): KeyObject | undefined {
  const fitting = keys.filter((known) => fits(known, algorithm) && (kid === undefined || known.kid === undefined || known.kid === kid));
  const exact = fitting.filter((known) => known.kid === kid);
  const candidates = exact.length > 0 ? exact : fitting;
  return candidates.length === 1 ? candidates[0]?.key : undefined;
}

const rsaBitsMin = 2_048;
/** Verification time grows with the square of the length. */
const rsaBitsMax = 8_192;

function fits({ key, algorithm: own }: KnownKey, algorithm: SignatureAlgorithm): boolean {
  // RFC 9864 calls EdDSA over Ed25519 by the curve's name.
  if (own !== undefined && own !== algorithm && !(own === 'Ed25519' && algorithm === 'EdDSA')) return false;
  const details = key.asymmetricKeyDetails;
  switch (algorithm) {
    case 'RS256':
    case 'PS256': {
      const bits = details?.modulusLength ?? 0;
      return key.asymmetricKeyType === 'rsa' && bits >= rsaBitsMin && bits <= rsaBitsMax;
    }
    case 'ES256':
      return key.asymmetricKeyType === 'ec' && details?.namedCurve === 'prime256v1';
    case 'EdDSA':
      return key.asymmetricKeyType === 'ed25519';
    default:
      algorithm satisfies never;
      return false;
  }
}

/** The code or name alone: messages of network errors can carry addresses of the inner network. */
function reasonOf(error: unknown): string {
  if (error instanceof JwksError) return error.message;
  if (error instanceof Error && 'code' in error && typeof error.code === 'string') return error.code;
  return error instanceof Error ? error.name : 'unknown';
}
