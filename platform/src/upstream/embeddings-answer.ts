import { BulkheadError } from '../errors/bulkhead-error.ts';
import { embeddingInputs } from '../inference/embedding-input.ts';
import type { Completion } from '../inference/provider.ts';
import { decodeFloat32, encodeFloat32 } from '../primitives/float32-base64.ts';
import { extractUsage } from '../primitives/token-usage.ts';
import { parseObject } from './json-object.ts';

type Body = Readonly<Record<string, unknown>>;

/**
 * Checks an embeddings answer against its request and returns it in the encoding the caller asked for, because some servers ignore
 * `encoding_format` and the SDK then decodes nonsense. Throws `embedding_failed` for a wrong number of vectors, changing dimensions,
 * a wrong order, numbers that are not finite, or a zero vector: each would be indexed as something nobody can find.
 */
export function readEmbeddings(bytes: Buffer, request: Body): Completion {
  const parsed = parseObject(bytes.toString('utf8'));
  if (parsed === undefined) throw failed('no list of embeddings');
  return embeddingsAnswer(parsed, request, bytes);
}

/** The same of an answer that came in another form; `bytes`: the answer's own, used as they are when nothing has to be changed. */
export function embeddingsAnswer(parsed: Body, request: Body, bytes?: Buffer): Completion {
  const entries = parsed['data'];
  if (!Array.isArray(entries)) throw failed('no list of embeddings');
  const expected = embeddingInputs(request['input']).length;
  if (entries.length !== expected) throw failed(`${entries.length} embeddings for ${expected} inputs`);
  const vectors = entries.map(readEntry);
  checkVectors(vectors, request['dimensions']);
  const usage = extractUsage(parsed['usage']);
  const wantsBase64 = request['encoding_format'] === 'base64';
  const isBase64 = (entry: Body) => typeof entry['embedding'] === 'string';
  if (entries.every((entry: Body) => isBase64(entry) === wantsBase64)) return { body: bytes ?? bytesOf(parsed), parsed, usage };
  const data = entries.map((entry: Body, index) => ({
    ...entry,
    embedding: wantsBase64 ? encodeFloat32(vectors[index] ?? []) : [...(vectors[index] ?? [])],
  }));
  const converted = { ...parsed, data };
  return { body: bytesOf(converted), parsed: converted, usage };
}

function bytesOf(answer: Body): Buffer {
  return Buffer.from(JSON.stringify(answer));
}

type Vector = readonly number[] | Float32Array;

function readEntry(entry: unknown, index: number): Vector {
  if (typeof entry !== 'object' || entry === null || !('embedding' in entry)) throw failed('an entry without an embedding');
  if ('index' in entry && entry.index !== index) throw failed('embeddings out of order');
  const { embedding } = entry;
  if (Array.isArray(embedding)) return embedding;
  const decoded = typeof embedding === 'string' ? decodeFloat32(embedding) : undefined;
  if (decoded === undefined) throw failed('an embedding that is no list of numbers');
  return decoded;
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

function failed(what: string): BulkheadError {
  return new BulkheadError('embedding_failed', `The embedding provider sent ${what}.`);
}
