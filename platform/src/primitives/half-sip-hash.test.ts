import { expect, it } from 'vitest';
import { type HalfSipKey, halfSipHash } from './half-sip-hash.ts';

/** Of the reference implementation (`vectors.h`, `vectors_hsip32`): key 00 01 … 07, message 00 01 … of the vector's number of bytes. */
const vectors = ['a9359f5b', '27475ab8', 'fa62a603', '8afee704', '2a6e4689', 'c5fab669', '5863fc23', '8bcf63c5', 'd0b8848f', 'f806e779'];
const key: HalfSipKey = [0x03020100, 0x07060504];

it('gives the numbers of the reference implementation', () => {
  const message = Uint8Array.from({ length: 64 }, (_, index) => index);
  for (const [length, expected] of vectors.entries()) {
    const hash = Buffer.alloc(4);
    hash.writeUInt32LE(halfSipHash(key, message, length));
    expect(hash.toString('hex')).toBe(expected);
  }
});
