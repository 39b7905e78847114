/** A vector as pgvector reads it. Nine significant digits bring back the same float32. */
export function vectorText(vector: Float32Array): string {
  const numbers = Array.from<string>({ length: vector.length });
  for (let index = 0; index < vector.length; index++) numbers[index] = (vector[index] ?? 0).toPrecision(9);
  return `[${numbers.join(',')}]`;
}

/** A vector as `vector_send` writes it: two 16-bit numbers (dimension, unused), then float32, all in network order. */
export const vectorHeadBytes = 4;

export function vectorFromBinary(bytes: Buffer): Float32Array {
  const numbers = Buffer.from(bytes.subarray(vectorHeadBytes));
  numbers.swap32();
  return new Float32Array(numbers.buffer.slice(numbers.byteOffset, numbers.byteOffset + numbers.byteLength));
}
