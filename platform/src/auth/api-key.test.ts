import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { assert } from '../primitives/assert.ts';
import { parseTenantId } from '../primitives/ids.ts';
import { apiKeyScannerPattern, issueApiKey, matchesApiKey, type NewApiKey, type Peppers, parseApiKey } from './api-key.ts';

const tenantId = parseTenantId('acme');
assert(tenantId !== undefined, 'acme is a tenant id');
const peppers: Peppers = { current: 1, byVersion: new Map([[1, Buffer.alloc(32, 1)]]) };
const fields: NewApiKey = { tenantId, name: 'a key', environment: 'live', limits: {}, expiresAtMs: undefined };
const issue = (changes: Partial<NewApiKey> = {}) => issueApiKey(peppers, { ...fields, ...changes });
const kept = (issued: ReturnType<typeof issue>) => ({ ...issued.record, createdAtMs: 0 });

describe('an API key', () => {
  it('has its public id and environment in it, and 190 bits that are in no record', () => {
    for (const environment of ['live', 'test'] as const) {
      const { key, record } = issue({ environment });
      expect(key).toMatch(new RegExp(`^bh_${environment}_[0-9A-Za-z]{8}_[0-9A-Za-z]{38}$`));
      expect(parseApiKey(key)).toEqual({ id: record.id, environment });
      expect(JSON.stringify({ ...record, digest: Buffer.from(record.digest).toString('latin1') })).not.toContain(key.slice(17, -4));
      expect(key.endsWith(record.lastFour)).toBe(true);
    }
  });

  it('has a checksum a scanner can compute: CRC-32 of all before it, in base 62, most significant first', () => {
    // Computed apart from this code: crc32("bh_live_AAAAAAAA_" + 32 times "B") = 1549910861.
    const body = `bh_live_AAAAAAAA_${'B'.repeat(32)}`;
    expect(parseApiKey(`${body}1gtGcH`)).toEqual({ id: 'AAAAAAAA', environment: 'live' });
    expect(parseApiKey(`${body}1gtGcI`)).toBeUndefined();
  });

  it('is refused when one character changed, anywhere', () => {
    const { key } = issue();
    const place = fc.integer({ min: 0, max: key.length - 1 });
    const other = fc.string({ unit: 'binary-ascii', minLength: 1, maxLength: 1 });
    fc.assert(
      fc.property(place, other, (at, character) => {
        fc.pre(key[at] !== character);
        expect(parseApiKey(key.slice(0, at) + character + key.slice(at + 1))).toBeUndefined();
      }),
      { numRuns: 1_000 },
    );
    for (const text of ['', key.slice(1), key.slice(0, -1), `${key}0`, `${key}\n`, key.repeat(200)])
      expect(parseApiKey(text)).toBeUndefined();
  });

  it('is never made twice, and every character of the alphabet is in use', () => {
    const issued = Array.from({ length: 2_000 }, () => issue().key);
    expect(new Set(issued.map((key) => key.slice(8, 16))).size).toBe(2_000);
    expect(new Set(issued.map((key) => key.slice(17, 49)).join('')).size).toBe(62);
  });

  it('matches its own record alone, under the pepper it was made with', () => {
    const mine = issue();
    const other = issue();
    expect(matchesApiKey(mine.key, kept(mine), peppers)).toBe(true);
    expect(matchesApiKey(mine.key, kept(other), peppers)).toBe(false);
    expect(matchesApiKey(mine.key, undefined, peppers)).toBe(false);
    const rotated: Peppers = { current: 2, byVersion: new Map([...peppers.byVersion, [2, Buffer.alloc(32, 2)]]) };
    expect(matchesApiKey(mine.key, kept(mine), rotated)).toBe(true);
    expect(issueApiKey(rotated, fields).record.pepperVersion).toBe(2);
    const forgotten: Peppers = { current: 2, byVersion: new Map([[2, Buffer.alloc(32, 1)]]) };
    expect(matchesApiKey(mine.key, kept(mine), forgotten)).toBe(false);
    expect(() => issueApiKey({ current: 3, byVersion: new Map() }, fields)).toThrow(/no pepper 3/);
  });

  it('is found by the published pattern, which the guide repeats', () => {
    const { key } = issue({ environment: 'test' });
    expect(`const apiKey = "${key}";`.match(new RegExp(apiKeyScannerPattern, 'g'))).toEqual([key]);
    const guide = readFileSync(new URL('../../../docs/guides/identity.md', import.meta.url), 'utf8');
    expect(guide).toContain(`\`${apiKeyScannerPattern}\``);
  });
});
