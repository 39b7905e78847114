/**
 * Marked text that proves where a tenant's words went. A token names its tenant without a register and cannot be made without the key, so one that is
 * found where it does not belong is evidence, and a text that only looks like one is not.
 *
 * `qzcnry` + base32(tag 5 bytes, random 6, mac 5): 32 letters and digits; tag = HMAC-SHA-256(key, tenant), mac = HMAC-SHA-256(key, tag, random).
 * Found also in upper case, with separators, zero-width characters or markup between its letters, over several pieces of a stream, and inside base64,
 * hexadecimal, percent and \u escapes. Not found reversed, translated or summarised: canaries are the alarm, ownership checks are the wall.
 */
import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import type { TenantId } from '../primitives/ids.ts';

export type CanaryView = 'letters' | 'escaped' | 'base64' | 'hexadecimal';

export interface CanarySighting {
  /** In its canonical form, lower case. */
  readonly token: string;
  /** How it was written. */
  readonly view: CanaryView;
}

const prefix = 'qzcnry';
const alphabet = 'abcdefghijklmnopqrstuvwxyz234567';
const tagBytes = 5;
const randomSize = 6;
const macBytes = 5;
const bodyCharacters = 26;
export const canaryTokenCharacters = prefix.length + bodyCharacters;

export class CanaryTokens {
  readonly #key: Uint8Array;

  /** `key`: 32 secret bytes. */
  constructor(key: Uint8Array) {
    this.#key = key;
  }

  make(tenantId: TenantId): string {
    const head = Buffer.concat([this.#tagOf(tenantId), randomBytes(randomSize)]);
    return prefix + toBase32(Buffer.concat([head, this.#macOf(head)]));
  }

  /** True for a token of this key, whoever owns it. */
  isGenuine(token: string): boolean {
    const body = bodyOf(token);
    if (body === undefined) return false;
    const head = body.subarray(0, tagBytes + randomSize);
    return timingSafeEqual(body.subarray(tagBytes + randomSize), this.#macOf(head));
  }

  /** True for a genuine token of this tenant. */
  belongsTo(token: string, tenantId: TenantId): boolean {
    return this.isGenuine(token) && (bodyOf(token)?.subarray(0, tagBytes).equals(this.#tagOf(tenantId)) ?? false);
  }

  /** Genuine tokens of any tenant in the text, each once. Linear in the text. */
  find(text: string): readonly CanarySighting[] {
    const found = new Map<string, CanaryView>();
    for (const [view, letters] of viewsOf(text)) {
      for (const token of candidatesIn(letters)) if (!found.has(token) && this.isGenuine(token)) found.set(token, view);
    }
    return [...found].map(([token, view]) => ({ token, view }));
  }

  /** For a text that arrives in pieces of any size. */
  watch(): CanaryWatch {
    return new CanaryWatch(this);
  }

  #tagOf(tenantId: TenantId): Buffer {
    return createHmac('sha256', this.#key).update('tenant\0').update(tenantId).digest().subarray(0, tagBytes);
  }

  #macOf(head: Uint8Array): Buffer {
    return createHmac('sha256', this.#key).update('token\0').update(head).digest().subarray(0, macBytes);
  }
}

/** What may be the beginning of a token in its widest writing, three characters of filling to each of its own. */
const keptCharacters = canaryTokenCharacters * 6 * 4;

/** Finds tokens that are cut over pieces; each token is reported once. */
export class CanaryWatch {
  readonly #tokens: CanaryTokens;
  readonly #seen = new Set<string>();
  #rest = '';

  constructor(tokens: CanaryTokens) {
    this.#tokens = tokens;
  }

  push(piece: string): readonly CanarySighting[] {
    const text = this.#rest + piece;
    this.#rest = text.slice(-keptCharacters);
    const sightings = this.#tokens.find(text).filter(({ token }) => !this.#seen.has(token));
    for (const { token } of sightings) this.#seen.add(token);
    return sightings;
  }
}

function* viewsOf(text: string): Generator<readonly [CanaryView, string]> {
  const plain = text.normalize('NFKC');
  yield ['letters', lettersOf(plain)];
  const unescaped = withoutEscapes(plain);
  if (unescaped !== plain) yield ['escaped', lettersOf(unescaped)];
  // Both texts: base64 travels in JSON and in URLs. A run may begin anywhere in its group of four characters.
  for (const source of unescaped === plain ? [plain] : [plain, unescaped]) {
    for (const run of runsOf(source, base64Run)) {
      for (let shift = 0; shift < 4; shift++) yield ['base64', lettersOf(Buffer.from(run.slice(shift), 'base64').toString('latin1'))];
    }
    for (const run of runsOf(source, hexadecimalRun)) {
      for (let shift = 0; shift < 2; shift++) yield ['hexadecimal', lettersOf(Buffer.from(run.slice(shift), 'hex').toString('latin1'))];
    }
  }
}

/** One class, repeated: no backtracking. Long enough to hold a token. */
const base64Run = /[A-Za-z0-9+/_\r\n-]{43,}/g;
const hexadecimalRun = /[0-9A-Fa-f\r\n]{64,}/g;

function* runsOf(text: string, run: RegExp): Generator<string> {
  for (const [found] of text.matchAll(run)) yield found.replaceAll(/[\r\n]/g, '');
}

function withoutEscapes(text: string): string {
  return text.replaceAll(/%([0-9A-Fa-f]{2})|\\u([0-9A-Fa-f]{4})/g, (_, percent?: string, unicode?: string) =>
    String.fromCharCode(Number.parseInt(percent ?? unicode ?? '0', 16)),
  );
}

/** Letters and digits alone, in lower case: whatever was put between them is gone. */
function lettersOf(text: string): string {
  return text.replaceAll(/[^A-Za-z0-9]+/g, '').toLowerCase();
}

function* candidatesIn(letters: string): Generator<string> {
  for (let at = letters.indexOf(prefix); at >= 0; at = letters.indexOf(prefix, at + 1)) {
    if (at + canaryTokenCharacters <= letters.length) yield letters.slice(at, at + canaryTokenCharacters);
  }
}

function bodyOf(token: string): Buffer | undefined {
  if (token.length !== canaryTokenCharacters || !token.startsWith(prefix)) return undefined;
  return fromBase32(token.slice(prefix.length));
}

/** RFC 4648 section 6 without padding, in lower case. */
function toBase32(bytes: Uint8Array): string {
  let bits = 0n;
  for (const byte of bytes) bits = (bits << 8n) | BigInt(byte);
  bits <<= BigInt(bodyCharacters * 5 - bytes.length * 8);
  let text = '';
  for (let index = bodyCharacters - 1; index >= 0; index--) text += alphabet.charAt(Number((bits >> BigInt(index * 5)) & 31n));
  return text;
}

/** Undefined for characters outside the alphabet and for bits that no token has: each token has one writing. */
function fromBase32(text: string): Buffer | undefined {
  let bits = 0n;
  for (const character of text) {
    const value = alphabet.indexOf(character);
    if (value < 0) return undefined;
    bits = (bits << 5n) | BigInt(value);
  }
  const size = tagBytes + randomSize + macBytes;
  const unused = BigInt(bodyCharacters * 5 - size * 8);
  if ((bits & ((1n << unused) - 1n)) !== 0n) return undefined;
  return Buffer.from((bits >> unused).toString(16).padStart(size * 2, '0'), 'hex');
}
