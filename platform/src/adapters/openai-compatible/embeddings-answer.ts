import { BulkheadError } from '../../errors/bulkhead-error.ts';
import type { Completion } from '../../inference/provider.ts';
import { extractUsage } from '../../primitives/token-usage.ts';
import { parseObject } from './completion-stream.ts';

type Body = Readonly<Record<string, unknown>>;

/**
 * Checks an embeddings answer against its request and returns it in the encoding the caller asked for, because some servers ignore
 * `encoding_format` and the SDK then decodes nonsense. Throws `embedding_failed` for a wrong number of vectors, changing dimensions,
 * a wrong order, numbers that are not finite, or a zero vector: each would be indexed as something nobody can find.
 */
export function readEmbeddings(bytes: Buffer, request: Body): Completion {
  const parsed = parseObject(bytes.toString('utf8'));
  const entries = parsed?.['data'];
  if (parsed === undefined || !Array.isArray(entries)) throw failed('no list of embeddings');
  const expected = inputCount(request['input']);
  if (entries.length !== expected) throw failed(`${entries.length} embeddings for ${expected} inputs`);
  const vectors = entries.map(readEntry);
  checkVectors(vectors, request['dimensions']);
  const usage = extractUsage(parsed['usage']);
  const wantsBase64 = request['encoding_format'] === 'base64';
  const isBase64 = (entry: Body) => typeof entry['embedding'] === 'string';
  if (entries.every((entry: Body) => isBase64(entry) === wantsBase64)) return { body: bytes, parsed, usage };
  const data = entries.map((entry: Body, index) => ({ ...entry, embedding: encode(vectors[index] ?? [], wantsBase64) }));
  const converted = { ...parsed, data };
  return { body: Buffer.from(JSON.stringify(converted)), parsed: converted, usage };
}

type Vector = readonly number[] | Float32Array;

function readEntry(entry: unknown, index: number): Vector {
  if (typeof entry !== 'object' || entry === null || !('embedding' in entry)) throw failed('an entry without an embedding');
  if ('index' in entry && entry.index !== index) throw failed('embeddings out of order');
  const { embedding } = entry;
  if (Array.isArray(embedding)) return embedding;
  if (typeof embedding === 'string') return decodeBase64(embedding);
  throw failed('an embedding that is no list of numbers');
}

/** Little-endian float32, as OpenAI sends them. */
function decodeBase64(text: string): Float32Array {
  const bytes = Buffer.from(text, 'base64');
  if (bytes.length === 0 || bytes.length % 4 !== 0) throw failed('an embedding that is no list of numbers');
  const vector = new Float32Array(bytes.length / 4);
  for (let index = 0; index < vector.length; index++) vector[index] = bytes.readFloatLE(index * 4);
  return vector;
}

function encode(vector: Vector, asBase64: boolean): string | number[] {
  if (!asBase64) return [...vector];
  const bytes = Buffer.alloc(vector.length * 4);
  vector.forEach((value, index) => {
    bytes.writeFloatLE(value, index * 4);
  });
  return bytes.toString('base64');
}

function checkVectors(vectors: readonly Vector[], dimensionsAsked: unknown): void {
  const dimensions = typeof dimensionsAsked === 'number' ? dimensionsAsked : vectors[0]?.length;
  for (const vector of vectors) {
    if (vector.length === 0 || vector.length !== dimensions) throw failed(`${vector.length} dimensions where ${dimensions} were expected`);
    let largest = 0;
    for (const value of vector) {
      if (!Number.isFinite(value)) throw failed('a number that is not finite');
      largest = Math.max(largest, Math.abs(value));
    }
    if (largest === 0) throw failed('a zero vector');
  }
}

/** A string or a list of tokens is one input; a list of either is as many as it has. */
function inputCount(input: unknown): number {
  return Array.isArray(input) && typeof input[0] !== 'number' ? input.length : 1;
}

function failed(what: string): BulkheadError {
  return new BulkheadError('embedding_failed', `The embedding provider sent ${what}.`);
}
