import { createSecretKey, randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { keyVersionOf, lengthPrefixed, openRecord, overheadBytes, recordHead, type SealedPlace, sealRecord } from './sealed-record.ts';

const column = { table: 'chunk', column: 'content', rowKey: ['store_no', 'file_no'] };
const place: SealedPlace = { tenantId: 'acme', column, row: [1, 23] };
const key = { version: 3, secret: createSecretKey(randomBytes(32)) };
const text = Buffer.from('the oak in the yard');

describe('a sealed record', () => {
  it('opens to what was sealed, of every length', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 5_000 }), (plaintext) => {
        const record = sealRecord(key, place, plaintext);
        expect(record.length).toBe(plaintext.length + overheadBytes);
        expect(openRecord(key, place, record)?.equals(plaintext)).toBe(true);
      }),
    );
  });

  it('begins with its format and key version and differs each time', () => {
    const [one, other] = [sealRecord(key, place, text), sealRecord(key, place, text)];
    expect(one.subarray(0, 5).equals(recordHead(3))).toBe(true);
    expect(keyVersionOf(one)).toBe(3);
    expect(one.subarray(5).equals(other.subarray(5))).toBe(false);
  });

  const elsewhere: readonly (readonly [string, SealedPlace])[] = [
    ['tenant', { ...place, tenantId: 'globex' }],
    ['table', { ...place, column: { ...column, table: 'response' } }],
    ['column', { ...place, column: { ...column, column: 'summary' } }],
    ['row', { ...place, row: [1, 24] }],
    ['row whose key has the same digits', { ...place, row: [12, 3] }],
  ];
  it.each(elsewhere)('does not open in another %s', (_, other) => {
    expect(openRecord(key, other, sealRecord(key, place, text))).toBeUndefined();
  });

  it('does not open under another key or another version', () => {
    const record = sealRecord(key, place, text);
    expect(openRecord({ ...key, secret: createSecretKey(randomBytes(32)) }, place, record)).toBeUndefined();
    expect(openRecord({ ...key, version: 4 }, place, record)).toBeUndefined();
  });

  it('does not open when any byte of nonce, ciphertext or tag is another', () => {
    const record = sealRecord(key, place, text);
    for (let at = 5; at < record.length; at++) {
      const changed = Buffer.from(record);
      changed[at] = (changed[at] ?? 0) ^ 1;
      expect(openRecord(key, place, changed), `byte ${at}`).toBeUndefined();
    }
  });

  it('is told from other bytes', () => {
    for (const bytes of [Buffer.alloc(0), Buffer.from('{}'), Buffer.alloc(overheadBytes), Buffer.alloc(overheadBytes - 1, 1)]) {
      expect(keyVersionOf(bytes)).toBeUndefined();
    }
  });
});

describe('length prefixes', () => {
  it('give different lists of fields different bytes', () => {
    const field = fc.string({ maxLength: 4 });
    fc.assert(
      fc.property(fc.array(field, { maxLength: 4 }), fc.array(field, { maxLength: 4 }), (one, other) => {
        expect(lengthPrefixed(one).equals(lengthPrefixed(other))).toBe(JSON.stringify(one) === JSON.stringify(other));
      }),
      { numRuns: 2_000 },
    );
  });
});
