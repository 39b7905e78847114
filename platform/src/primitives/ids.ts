import { randomFillSync } from 'node:crypto';
import type { Brand } from './brand.ts';

/** A tenant's permanent name: `^[a-z0-9][a-z0-9-]{1,62}$`, never reused. Only `parseTenantId` makes one. */
export type TenantId = Brand<string, 'TenantId'>;

const tenantIdPattern = /^[a-z0-9][a-z0-9-]{1,62}$/;

/** Returns the tenant id, or undefined when the text does not have the form of one. */
export function parseTenantId(text: unknown): TenantId | undefined {
  return typeof text === 'string' && tenantIdPattern.test(text) ? (text as TenantId) : undefined;
}

/** Makes opaque identifiers. A port, so that tests can seed it. */
export interface IdSource {
  /** `prefix` + 26 characters that sort by time of creation within one process (Crockford base 32 of 48 bit time, 80 bit random). */
  next(prefix: IdPrefix): string;
}

export type IdPrefix =
  | 'req_'
  | 'chatcmpl-'
  | 'resp_'
  | 'msg_'
  | 'fs_'
  | 'fc_'
  | 'call_'
  | 'file-'
  | 'vs_'
  | 'vsfb_'
  | 'job_'
  | 'use_'
  | 'rsv_'
  | 'key_'
  | 'audit_'
  | 'replica_'
  | 'debt_';

const alphabet = '0123456789abcdefghjkmnpqrstvwxyz';
const alphabetCodes = Buffer.from(alphabet);
const randomCharacters = 16;
/** Random bytes, each already turned into a character of the alphabet. */
const randomPool = Buffer.alloc(4_096);
let randomOffset = randomPool.length;

/** ULID layout (https://github.com/ulid/spec), lower case; random part refilled 4 KB at a time because a system call per id costs 2 µs. */
export const systemIds: IdSource = {
  next(prefix) {
    return prefix + encodeTime(Date.now()) + encodeRandom();
  },
};

let encodedTimeMs = -1;
let encodedTime = '';

/** The same within a millisecond, so it is kept for the next id. */
function encodeTime(timeMs: number): string {
  if (timeMs === encodedTimeMs) return encodedTime;
  let rest = timeMs;
  let text = '';
  for (let index = 0; index < 10; index++) {
    text = alphabet.charAt(rest % 32) + text;
    rest = Math.floor(rest / 32);
  }
  encodedTimeMs = timeMs;
  encodedTime = text;
  return text;
}

/** A slice of the pool: appending character by character made 16 strings of garbage an id. */
function encodeRandom(): string {
  if (randomOffset + randomCharacters > randomPool.length) {
    randomFillSync(randomPool);
    for (let index = 0; index < randomPool.length; index++) randomPool[index] = alphabetCodes[(randomPool[index] ?? 0) & 31] ?? 0;
    randomOffset = 0;
  }
  const text = randomPool.toString('latin1', randomOffset, randomOffset + randomCharacters);
  randomOffset += randomCharacters;
  return text;
}

/** Identifiers in counting order, for tests. */
export function countingIds(): IdSource {
  let count = 0;
  return { next: (prefix) => prefix + String(++count).padStart(26, '0') };
}
