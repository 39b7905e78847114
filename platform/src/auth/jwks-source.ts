/**
 * Where an issuer's public keys come from: a file, or a JWKS over HTTP. Fetches are bounded (no redirects, 3 s, 64 KB, 10 keys), single flight,
 * at most one in 30 s, and known keys outlive a broken endpoint for 24 h; unknown ones are never made up.
 */
import { createPublicKey, type KeyObject } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { request } from 'undici';
import type { Clock } from '../primitives/clock.ts';

export interface KeySource {
  /** The key of this id that fits the algorithm's type; without an id, the only key there is. Undefined: none, or not unambiguous. */
  find(kid: string | undefined, algorithm: SignatureAlgorithm): Promise<KeyObject | undefined>;
}

export type SignatureAlgorithm = 'RS256' | 'PS256' | 'ES256' | 'EdDSA';

const bytesMax = 65_536;
const keysMax = 10;
const timeoutMs = 3_000;
const cooldownMs = 30_000;
const freshMs = 10 * 60_000;
const staleMs = 24 * 3_600_000;

type JsonWebKeyObject = Readonly<Record<string, unknown>>;

interface KnownKey {
  readonly kid: string | undefined;
  readonly key: KeyObject;
}

/** A PEM (SPKI) or JWK file, read once at start. Throws when it holds no public key. */
export function openKeyFile(file: string): KeySource {
  const text = readFileSync(file, 'utf8');
  const jwk = text.trimStart().startsWith('{') ? (JSON.parse(text) as JsonWebKeyObject & { readonly kid?: string }) : undefined;
  const key = jwk === undefined ? createPublicKey(text) : createPublicKey({ key: jwk as never, format: 'jwk' });
  const known: KnownKey = { kid: undefined, key };
  return { find: async (_, algorithm) => pick([known], undefined, algorithm) };
}

/** https only, but for a loopback host. */
export function openJwks(url: string, clock: Clock): KeySource {
  const { protocol, hostname } = new URL(url);
  const isLoopback = hostname === 'localhost' || hostname === '[::1]' || hostname.startsWith('127.');
  if (protocol !== 'https:' && !isLoopback) throw new Error('a JWKS is fetched over https');
  return new JwksSource(url, clock);
}

class JwksSource implements KeySource {
  readonly #url: string;
  readonly #clock: Clock;
  #keys: readonly KnownKey[] = [];
  #fetchedAtMs = Number.NEGATIVE_INFINITY;
  #triedAtMs = Number.NEGATIVE_INFINITY;
  #running: Promise<void> | undefined;

  constructor(url: string, clock: Clock) {
    this.#url = url;
    this.#clock = clock;
  }

  async find(kid: string | undefined, algorithm: SignatureAlgorithm): Promise<KeyObject | undefined> {
    const ageMs = this.#clock.monotonicMs() - this.#fetchedAtMs;
    const known = ageMs < staleMs ? pick(this.#keys, kid, algorithm) : undefined;
    if (known !== undefined && ageMs < freshMs) return known;
    await this.#refresh();
    const ageAfterMs = this.#clock.monotonicMs() - this.#fetchedAtMs;
    return ageAfterMs < staleMs ? pick(this.#keys, kid, algorithm) : undefined;
  }

  #refresh(): Promise<void> {
    if (this.#running !== undefined) return this.#running;
    if (this.#clock.monotonicMs() - this.#triedAtMs < cooldownMs) return Promise.resolve();
    this.#triedAtMs = this.#clock.monotonicMs();
    this.#running = fetchKeys(this.#url)
      .then((keys) => {
        this.#keys = keys;
        this.#fetchedAtMs = this.#clock.monotonicMs();
      })
      // The endpoint is broken: what is known stays good for a day, and nothing new is believed.
      .catch(() => {})
      .finally(() => {
        this.#running = undefined;
      });
    return this.#running;
  }
}

async function fetchKeys(url: string): Promise<readonly KnownKey[]> {
  const answer = await request(url, {
    headersTimeout: timeoutMs,
    bodyTimeout: timeoutMs,
    signal: AbortSignal.timeout(timeoutMs),
    headers: { accept: 'application/json' },
  });
  if (answer.statusCode !== 200) {
    await answer.body.dump();
    throw new Error('the JWKS endpoint did not answer 200');
  }
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const part of answer.body as AsyncIterable<Buffer>) {
    bytes += part.length;
    if (bytes > bytesMax) throw new Error('the JWKS is too large');
    parts.push(part);
  }
  const { keys } = JSON.parse(Buffer.concat(parts).toString('utf8')) as { readonly keys?: unknown };
  if (!Array.isArray(keys) || keys.length > keysMax) throw new Error('the JWKS has no usable list of keys');
  return keys.flatMap(importKey);
}

function importKey(jwk: JsonWebKeyObject & { readonly kid?: unknown; readonly use?: unknown }): KnownKey[] {
  const isSigning = jwk.use === undefined || jwk.use === 'sig';
  if (!isSigning || !['RSA', 'EC', 'OKP'].includes(String(jwk.kty)) || 'd' in jwk) return [];
  try {
    return [{ kid: typeof jwk.kid === 'string' ? jwk.kid : undefined, key: createPublicKey({ key: jwk as never, format: 'jwk' }) }];
  } catch {
    // One unreadable key does not make the others worse.
    return [];
  }
}

function pick(keys: readonly KnownKey[], kid: string | undefined, algorithm: SignatureAlgorithm): KeyObject | undefined {
  const fitting = keys.filter((known) => fits(known.key, algorithm) && (kid === undefined || known.kid === undefined || known.kid === kid));
  const exact = fitting.filter((known) => known.kid === kid);
  const candidates = exact.length > 0 ? exact : fitting;
  return candidates.length === 1 ? candidates[0]?.key : undefined;
}

const rsaBitsMin = 2_048;

function fits(key: KeyObject, algorithm: SignatureAlgorithm): boolean {
  const details = key.asymmetricKeyDetails;
  switch (algorithm) {
    case 'RS256':
    case 'PS256':
      return key.asymmetricKeyType === 'rsa' && (details?.modulusLength ?? 0) >= rsaBitsMin;
    case 'ES256':
      return key.asymmetricKeyType === 'ec' && details?.namedCurve === 'prime256v1';
    case 'EdDSA':
      return key.asymmetricKeyType === 'ed25519';
    default:
      algorithm satisfies never;
      return false;
  }
}
