/**
 * API keys: `bh_<live|test>_<8 characters id>_<32 characters secret><6 characters CRC-32>`, base62. The checksum refuses garbage before anything
 * is looked up, and lets scanners recognise a leaked key (after GitHub's token format). Only an HMAC of the key is kept: the secret has 190
 * bits, so a slow hash would only slow us.
 */
import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import { crc32 } from 'node:zlib';
import type { TenantId } from '../primitives/ids.ts';
import type { ApiKeyRecord } from '../tenancy/tenant-directory.ts';

/** For secret scanners: matches every key and, but for the checksum, nothing else. Documented in docs/guides/identity.md. */
export const apiKeyScannerPattern = 'bh_(?:live|test)_[0-9A-Za-z]{8}_[0-9A-Za-z]{38}';

const wholeKey = /^bh_(live|test)_([0-9A-Za-z]{8})_[0-9A-Za-z]{38}$/;
const alphabet = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
const idLength = 8;
const secretLength = 32;
const checksumLength = 6;

/** Secrets that key digests depend on, by version; the newest is used for new keys. */
export interface Peppers {
  readonly current: number;
  readonly byVersion: ReadonlyMap<number, Buffer>;
}

export interface ParsedApiKey {
  readonly id: string;
  readonly environment: 'live' | 'test';
}

export interface NewApiKey {
  readonly tenantId: TenantId;
  readonly name: string;
  readonly environment: 'live' | 'test';
  readonly limits: ApiKeyRecord['limits'];
  readonly budget?: ApiKeyRecord['budget'];
  readonly team?: ApiKeyRecord['team'];
  readonly expiresAtMs: number | undefined;
}

/** The key's public parts, or undefined when form or checksum is wrong. No I/O. */
export function parseApiKey(text: string): ParsedApiKey | undefined {
  const match = wholeKey.exec(text);
  if (match === null) return undefined;
  if (checksumOf(text.slice(0, -checksumLength)) !== text.slice(-checksumLength)) return undefined;
  return { environment: match[1] as ParsedApiKey['environment'], id: match[2] as string };
}

/** A new key: its text, to be shown once, and what may be kept of it. */
export function issueApiKey(
  peppers: Peppers,
  key: NewApiKey,
): { readonly key: string; readonly record: Omit<ApiKeyRecord, 'createdAtMs' | 'revokedAtMs'> } {
  const id = randomText(idLength);
  const text = sealApiKey(`bh_${key.environment}_${id}_${randomText(secretLength)}`);
  const { tenantId, name, environment, limits, budget, team, expiresAtMs } = key;
  return {
    key: text,
    record: {
      id,
      tenantId,
      name,
      environment,
      limits,
      digest: digestOf(text, pepperOf(peppers, peppers.current)),
      pepperVersion: peppers.current,
      lastFour: text.slice(-4),
      ...(budget !== undefined && { budget }),
      ...(team !== undefined && { team }),
      ...(expiresAtMs !== undefined && { expiresAtMs }),
    },
  };
}

/** Adds the checksum that a key ends with. It says nothing about whether the key exists. */
export function sealApiKey(body: string): string {
  return body + checksumOf(body);
}

const digestBytes = 32;
const dummyDigest = randomBytes(digestBytes);

/** Constant time in the record: an unknown key is compared with a dummy, so it takes the same path. */
export function matchesApiKey(text: string, record: ApiKeyRecord | undefined, peppers: Peppers): boolean {
  const pepper = record && peppers.byVersion.get(record.pepperVersion);
  const isComparable = record?.digest.length === digestBytes && pepper !== undefined;
  const isEqual = timingSafeEqual(digestOf(text, pepper ?? pepperOf(peppers, peppers.current)), isComparable ? record.digest : dummyDigest);
  return isEqual && isComparable;
}

function pepperOf(peppers: Peppers, version: number): Buffer {
  const pepper = peppers.byVersion.get(version);
  if (pepper === undefined) throw new Error(`there is no pepper ${version}`);
  return pepper;
}

function digestOf(text: string, pepper: Buffer): Buffer {
  return createHmac('sha256', pepper).update(text).digest();
}

/** Rejection sampling: 248 is the largest multiple of 62 in a byte. */
function randomText(length: number): string {
  let text = '';
  while (text.length < length) {
    for (const byte of randomBytes(length)) {
      if (byte < 248 && text.length < length) text += alphabet.charAt(byte % 62);
    }
  }
  return text;
}

function checksumOf(body: string): string {
  let rest = crc32(body);
  let text = '';
  for (let index = 0; index < checksumLength; index++) {
    text = alphabet.charAt(rest % 62) + text;
    rest = Math.floor(rest / 62);
  }
  return text;
}
