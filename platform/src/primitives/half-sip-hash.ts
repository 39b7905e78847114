/**
 * HalfSipHash-2-4 with 32 bits of output (Aumasson and Bernstein, SipHash, INDOCRYPT 2012; reference `halfsiphash.c`): a hash for tables whose keys a
 * stranger may choose. Without the key nobody can find words that collide.
 */
export type HalfSipKey = readonly [number, number];

/** Of the first `length` bytes. An unsigned number of 32 bits. */
export function halfSipHash([key0, key1]: HalfSipKey, bytes: Uint8Array, length: number): number {
  let v0 = key0 | 0;
  let v1 = key1 | 0;
  let v2 = 0x6c796765 ^ key0;
  let v3 = 0x74656462 ^ key1;
  const whole = length & ~3;
  // Two rounds for each word, the last of which holds the length, and four without a word.
  for (let at = 0; at <= whole + 4; at += 4) {
    const isEnd = at > whole;
    const word = isEnd ? 0 : at < whole ? wordAt(bytes, at) : lastWord(bytes, whole, length);
    if (isEnd) v2 ^= 0xff;
    v3 ^= word;
    for (let round = isEnd ? 4 : 2; round > 0; round--) {
      v0 = (v0 + v1) | 0;
      v1 = rotate(v1, 5) ^ v0;
      v0 = rotate(v0, 16);
      v2 = (v2 + v3) | 0;
      v3 = rotate(v3, 8) ^ v2;
      v0 = (v0 + v3) | 0;
      v3 = rotate(v3, 7) ^ v0;
      v2 = (v2 + v1) | 0;
      v1 = rotate(v1, 13) ^ v2;
      v2 = rotate(v2, 16);
    }
    v0 ^= word;
  }
  return (v1 ^ v3) >>> 0;
}

function rotate(value: number, by: number): number {
  return (value << by) | (value >>> (32 - by));
}

function wordAt(bytes: Uint8Array, at: number): number {
  return (bytes[at] as number) | ((bytes[at + 1] as number) << 8) | ((bytes[at + 2] as number) << 16) | ((bytes[at + 3] as number) << 24);
}

function lastWord(bytes: Uint8Array, whole: number, length: number): number {
  let word = length << 24;
  for (let at = whole; at < length; at++) word |= (bytes[at] as number) << (8 * (at - whole));
  return word;
}
