/** A vector as pgvector reads it. Nine significant digits bring back the same float32. */
export function vectorText(vector: Float32Array): string {
  const numbers = Array.from<string>({ length: vector.length });
  for (let index = 0; index < vector.length; index++) numbers[index] = (vector[index] ?? 0).toPrecision(9);
  return `[${numbers.join(',')}]`;
}
