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
  | 'audit_';

const alphabet = '0123456789abcdefghjkmnpqrstvwxyz';
const randomPool = Buffer.alloc(4_096);
let randomOffset = randomPool.length;

/** ULID layout (https://github.com/ulid/spec), lower case; random part refilled 4 KB at a time because a system call per id costs 2 µs. */
export const systemIds: IdSource = {
  next(prefix) {
    return prefix + encodeTime(Date.now()) + encodeRandom();
  },
};

function encodeTime(timeMs: number): string {
  let rest = timeMs;
  let text = '';
  for (let index = 0; index < 10; index++) {
    text = alphabet.charAt(rest % 32) + text;
    rest = Math.floor(rest / 32);
  }
  return text;
}

function encodeRandom(): string {
  if (randomOffset + 16 > randomPool.length) {
    randomFillSync(randomPool);
    randomOffset = 0;
  }
  let text = '';
  for (let index = 0; index < 16; index++) text += alphabet.charAt(randomPool.readUInt8(randomOffset + index) & 31);
  randomOffset += 16;
  return text;
}

/** Identifiers in counting order, for tests. */
export function countingIds(): IdSource {
  let count = 0;
  return { next: (prefix) => prefix + String(++count).padStart(26, '0') };
}
