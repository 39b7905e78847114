import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { embedText } from '../../src/adapters/hashed-embedder/embed-text.ts';
import { compileFilter } from '../../src/adapters/postgres/documents-filter.ts';
import { seededRandom } from '../../src/primitives/random.ts';
import { matchesFilter, parseAttributeFilter } from '../../src/rag/filter.ts';
import { lexicalText } from '../../src/rag/lexical-text.ts';
import type { AttributeFilter, Attributes, AttributeValue } from '../../src/tenancy/attributes.ts';
import type { RetrievedChunk } from '../../src/tenancy/capabilities.ts';
import { chunking, dimensions, Library, question, sql } from './library.ts';

const seed = 20_261_123;
const random = seededRandom(seed);
const pick = <T>(items: readonly T[]): T => items[Math.floor(random.next() * items.length)] as T;
const vocabulary =
  'rent tenant lease deposit month notice repair roof window landlord heating garden parking key term renew sublet pet noise fee'.split(
    ' ',
  );
const sentence = (words: number) => Array.from({ length: words }, () => pick(vocabulary)).join(' ');
const keys = [
  'year',
  'kind',
  'open',
  "o'key",
  'a"b',
  'x\\y',
  '$1',
  '__proto__',
  'constructor',
  '; DROP TABLE app.file; --',
  'ключ',
  '%_',
  '{}',
  'a -> b',
  ' ',
];
const values: readonly AttributeValue[] = [
  0,
  1,
  -1,
  2_026,
  0.1,
  1e21,
  1e-7,
  -0,
  123_456_789_012_345,
  true,
  false,
  '',
  'lease',
  'Lease',
  "o'clock",
  '"quoted"',
  '\\',
  '\u{1f600}',
  '\uffee',
  'é',
  'z',
  '10',
  '1',
  'true',
  'null',
  '$1',
  "'; DELETE FROM app.chunk; --",
  'a\nb',
  '[1]',
  '{"a":1}',
];

function randomAttributes(): Attributes {
  const attributes: Record<string, AttributeValue> = Object.create(null);
  const count = Math.floor(random.next() * 6);
  for (let index = 0; index < count; index++) attributes[pick(keys)] = pick(values);
  return { ...attributes };
}

function randomFilter(depth: number): AttributeFilter {
  if (depth < 5 && random.next() < 0.35) {
    const filters = Array.from({ length: 1 + Math.floor(random.next() * 3) }, () => randomFilter(depth + 1));
    return { type: random.next() < 0.5 ? 'and' : 'or', filters };
  }
  const type = pick(['eq', 'ne', 'gt', 'gte', 'lt', 'lte', 'in', 'nin'] as const);
  if (type === 'in' || type === 'nin')
    return { type, key: pick(keys), value: Array.from({ length: 1 + Math.floor(random.next() * 4) }, () => pick(values)) };
  const isOrder = type !== 'eq' && type !== 'ne';
  return { type, key: pick(keys), value: pick(isOrder ? values.filter((value) => typeof value !== 'boolean') : values) };
}

let library: Library;
let storeId: string;
const texts = Array.from({ length: 120 }, (_, index) => `${sentence(4 + (index % 40))}${index % 9 === 0 ? ` unique${index}` : ''}`);
texts.push(texts[5] as string, texts[5] as string);
const attributes = texts.map(randomAttributes);
beforeAll(async () => {
  library = await Library.open();
  storeId = await library.storeOf('acme', texts, (index) => attributes[index] as Attributes);
  // Neighbours in every shard, with the same words.
  for (const tenant of ['globex', 'initech', 'umbrella']) await library.storeOf(tenant, texts.slice(0, 30));
});
afterAll(() => library[Symbol.asyncDispose]());

const search = async (query: Parameters<typeof question>) =>
  (await library.shelves('acme').vectorStores.search(storeId, question(...query))) ?? [];
const indexOf = (chunk: RetrievedChunk) => Number(/file-(\d+)/.exec(chunk.filename)?.[1]);

describe('attribute filters', () => {
  test(`mean in the database what they mean in the oracle: 3,000 random filters over 122 files (seed ${seed})`, async () => {
    const database = library.db.database.forTenant(library.shelves('acme').principal);
    let mismatches = 0;
    await database.read(async (db) => {
      for (let round = 0; round < 3_000; round++) {
        const filter = parseAttributeFilter(JSON.parse(JSON.stringify(randomFilter(1))), 'filters');
        const { rows } = await sql<{ file_no: number }>`
          SELECT file_no FROM app.vector_store_file WHERE ${compileFilter(filter, sql`attributes`)} ORDER BY file_no`.execute(db);
        const expected = attributes.flatMap((own, index) => (matchesFilter(filter, own) ? [index + 1] : []));
        if (JSON.stringify(rows.map((row) => row.file_no)) !== JSON.stringify(expected)) mismatches++;
      }
    });
    expect(mismatches).toBe(0);
  }, 120_000);

  test('and searches agree on who passes, and always answer as many as there are', async () => {
    for (let round = 0; round < 60; round++) {
      const filter = randomFilter(3);
      const matching = new Set(attributes.flatMap((own, index) => (matchesFilter(filter, own) ? [index] : [])));
      const limit = 1 + Math.floor(random.next() * 50);
      const found = await search([sentence(3), { filter, limit }]);
      expect(found).toHaveLength(Math.min(limit, matching.size));
      for (const chunk of found) expect(matching.has(indexOf(chunk))).toBe(true);
    }
  });

  test.each([
    [{ type: 'eq', key: 'a' }, 'filters.value'],
    [{ type: 'eq', key: '', value: 1 }, 'filters.key'],
    [{ type: 'eq', key: 'k'.repeat(65), value: 1 }, 'filters.key'],
    [{ type: 'eq', key: 'a\0', value: 1 }, 'filters.key'],
    [{ type: 'eq', key: 'a', value: 'x'.repeat(513) }, 'filters.value'],
    [{ type: 'eq', key: 'a', value: '\ud800' }, 'filters.value'],
    [{ type: 'eq', key: 'a', value: Number.NaN }, 'filters.value'],
    [{ type: 'eq', key: 'a', value: [1] }, 'filters.value'],
    [{ type: 'gt', key: 'a', value: true }, 'filters.value'],
    [{ type: 'in', key: 'a', value: [] }, 'filters.value'],
    [{ type: 'in', key: 'a', value: [1, null] }, 'filters.value.1'],
    [{ type: 'in', key: 'a', value: Array.from({ length: 101 }, () => 1) }, 'filters.value'],
    [{ type: 'like', key: 'a', value: 1 }, 'filters.type'],
    [{ type: 'and', filters: [] }, 'filters.filters'],
    [{ type: 'or', filters: [{ type: 'eq', key: 'a', value: {} }] }, 'filters.filters.0.value'],
    [{ type: 'eq', key: 'a', value: 1, tenant_id: 'globex' }, 'filters'],
    [[], 'filters'],
    ['x', 'filters'],
  ])('%j is refused, and the field at fault named', (filter, param) => {
    expect(() => parseAttributeFilter(filter, 'filters')).toThrow(expect.objectContaining({ code: 'invalid_filter', param }));
  });

  test('are bounded at 8 levels and 64 parts', () => {
    const nested = (depth: number): unknown =>
      depth === 1 ? { type: 'eq', key: 'a', value: 1 } : { type: 'and', filters: [nested(depth - 1)] };
    const wide = (parts: number) => ({
      type: 'or',
      filters: Array.from({ length: parts - 1 }, () => ({ type: 'eq', key: 'a', value: 1 })),
    });
    expect(() => parseAttributeFilter(nested(8), 'f')).not.toThrow();
    expect(() => parseAttributeFilter(nested(9), 'f')).toThrow('at most 8 deep');
    expect(() => parseAttributeFilter(wide(64), 'f')).not.toThrow();
    expect(() => parseAttributeFilter(wide(65), 'f')).toThrow('at most 64 parts');
  });
});

describe('search', () => {
  test('ranks exactly as BM25 and brute-force nearest neighbours fused in plain code', async () => {
    const words = await library.truth<{ position: number; lexemes: string[]; frequencies: number[] }>(
      `SELECT position, array_agg(lexeme) AS lexemes, array_agg(cardinality(positions)) AS frequencies
         FROM unnest($1::text[]) WITH ORDINALITY AS t (body, position), unnest(to_tsvector('english', body)) GROUP BY position ORDER BY position`,
      [texts.map(lexicalText)],
    );
    const documents = words.map(
      ({ lexemes, frequencies }) => new Map(lexemes.map((lexeme, index) => [lexeme, frequencies[index] as number])),
    );
    const embeddings = texts.map((text) => embedText(text, dimensions));
    let compared = 0;
    for (let round = 0; round < 60; round++) {
      const text = `${sentence(2 + (round % 6))}${round % 5 === 0 ? ' unique9 unique18' : ''}`;
      const weights = { dense: 0.1 + random.next(), lexical: 0.1 + random.next() };
      const terms = await library.truth<{ lexeme: string }>(`SELECT lexeme FROM unnest(to_tsvector('english', $1))`, [text]);
      const dense = nearest(embeddings, embedText(text, dimensions));
      // The database compares in single precision: which of two such neighbours is nearer has no answer.
      if (hasNearTie(dense)) continue;
      compared++;
      const lexemes = terms.map((term) => term.lexeme);
      const expected = fuse(bm25(documents, lexemes), dense, weights);
      const found = await search([text, { weights, limit: 20 }]);
      expect(found.map((chunk) => chunk.score.toFixed(9))).toEqual(expected.slice(0, 20).map(({ score }) => score.toFixed(9)));
      for (const chunk of found) expect(chunk.score).toBeCloseTo(expected.find(({ index }) => index === indexOf(chunk))?.score ?? 0, 9);
    }
    expect(compared).toBeGreaterThanOrEqual(30);
  });

  test('finds what brute force finds when only vectors count: recall 1.000 over 200 questions', async () => {
    const embeddings = texts.map((text) => embedText(text, dimensions));
    let found = 0;
    for (let round = 0; round < 200; round++) {
      const embedding = Float32Array.from({ length: dimensions }, () => random.next() - 0.5);
      const distances = embeddings.map((candidate) => cosineDistance(candidate, embedding));
      const tenth = distances.toSorted((left, right) => left - right)[9] ?? 0;
      const chunks = await search(['', { embedding, weights: { dense: 1, lexical: 0 } }]);
      found += chunks.filter((chunk) => (distances[indexOf(chunk)] ?? 2) <= tenth + 1e-6).length;
    }
    expect(found / 2_000).toBe(1);
  });

  test('answers min(limit, chunks) whatever is asked, each once, scores in (0, 1] and falling', async () => {
    await fc.assert(
      fc.asyncProperty(fc.string({ unit: 'grapheme', maxLength: 60 }), fc.integer({ min: 1, max: 50 }), async (text, limit) => {
        const found = await search([text.replaceAll('\0', ''), { limit }]);
        expect(found).toHaveLength(Math.min(limit, texts.length));
        expect(new Set(found.map((chunk) => chunk.chunkId)).size).toBe(found.length);
        for (const [index, chunk] of found.entries()) {
          expect(chunk.ownerId).toBe('acme');
          expect(chunk.score).toBeGreaterThan(0);
          expect(chunk.score).toBeLessThanOrEqual(found[index - 1]?.score ?? 1);
        }
      }),
      { numRuns: 60 },
    );
  });

  test('gives the same chunk of three equal ones first every time: ties go by chunk', async () => {
    const found = await search([texts[5] as string, { limit: 50 }]);
    expect(found.map(indexOf).filter((index) => [5, 120, 121].includes(index))).toEqual([5, 120, 121]);
  });

  test('takes hostile and endless questions', async () => {
    const questions = [
      "'; DROP TABLE app.chunk; --",
      '& | ! <-> :* ()',
      '\\',
      '%',
      'a'.repeat(4_096),
      `${vocabulary.join(' ')} `.repeat(60),
      '   ',
      '\u{1f600}',
    ];
    for (const text of questions) expect(await search([text])).toHaveLength(10);
  });

  test('of an empty store finds nothing, of an absent one is undefined', async () => {
    const { vectorStores } = library.shelves('acme');
    const empty = await vectorStores.create({ name: '', metadata: {} });
    expect(await vectorStores.search(empty.id, question('rent'))).toEqual([]);
    expect(await vectorStores.search('vs_none', question('rent'))).toBeUndefined();
  });

  test('refuses a vector of another dimension as a fault of ours', async () => {
    await expect(search(['rent', { embedding: new Float32Array(12) }])).rejects.toThrow('dimension');
  });

  test('finds Chinese and Japanese words inside a sentence', async () => {
    const { files, vectorStores } = library.shelves('kanji');
    const store = await vectorStores.create({ name: '', metadata: {} });
    for (const body of ['承租人应当按时支付租金。', '出租人负责维修屋顶。', 'テナントは家賃を払う。']) {
      const file = await files.create({ filename: `${body.slice(0, 2)}.txt`, purpose: 'assistants', body: Buffer.from(body) });
      await vectorStores.attachFile(store.id, { fileId: file.id, attributes: {}, chunking });
    }
    await library.worker.drain();
    const first = async (text: string) =>
      (await vectorStores.search(store.id, question(text, { weights: { dense: 0, lexical: 1 } })))?.[0]?.text;
    expect(await first('屋顶')).toBe('出租人负责维修屋顶。');
    expect(await first('家賃')).toBe('テナントは家賃を払う。');
  });
});

describe('the plan of a search', () => {
  test('reads one partition through the key, and could not use an approximate index if there were one', async () => {
    const database = library.db.database.forTenant(library.shelves('acme').principal);
    await library.truth(`CREATE INDEX planted_graph ON app.embedding_384_s0 USING hnsw (embedding public.vector_cosine_ops)`);
    const violations = await library.truth(`SELECT index_name::text FROM control.approximate_index_violation`);
    expect(violations).toEqual([{ index_name: 'app.planted_graph' }]);
    const plan = (shape: string) =>
      database.read(async (db) => {
        await sql`SELECT set_config('enable_seqscan', 'off', true), set_config('enable_sort', 'off', true)`.execute(db);
        const vector = `[${Array.from({ length: dimensions }, () => '0.1').join(',')}]`;
        const { rows } = await sql<Record<string, string>>`
          EXPLAIN SELECT file_no FROM app.embedding_384 WHERE shard_id = 0 AND store_no = 1
           ORDER BY ${sql.raw(shape.replace('$q', `'${vector}'::public.vector`))} LIMIT 10`.execute(db);
        return rows.map((row) => row['QUERY PLAN']).join('\n');
      });
    expect(await plan('embedding OPERATOR(public.<=>) $q')).toContain('planted_graph');
    const exact = await plan('(embedding OPERATOR(public.<=>) $q) + 0');
    expect(exact).not.toContain('planted_graph');
    expect(exact).toContain('embedding_384_s0_pkey');
    expect(exact).not.toMatch(/embedding_384_s[123]/);
    await library.truth('DROP INDEX app.planted_graph');
  });
});

function bm25(documents: readonly ReadonlyMap<string, number>[], terms: readonly string[]): number[] {
  const lengths = documents.map((document) => [...document.values()].reduce((sum, count) => sum + count, 0));
  const mean = lengths.reduce((sum, length) => sum + length, 0) / documents.length;
  return documents.map((document, index) =>
    terms.reduce((score, term) => {
      const holding = documents.filter((other) => other.has(term)).length;
      const frequency = document.get(term) ?? 0;
      const idf = Math.log(1 + (documents.length - holding + 0.5) / (holding + 0.5));
      return score + (idf * frequency * 2.2) / (frequency + 1.2 * (0.25 + (0.75 * (lengths[index] ?? 0)) / mean));
    }, 0),
  );
}

function nearest(embeddings: readonly Float32Array[], asked: Float32Array): number[] {
  return embeddings.map((candidate) => -cosineDistance(candidate, asked));
}

function hasNearTie(scores: readonly number[]): boolean {
  const inOrder = scores.toSorted((left, right) => left - right);
  return inOrder.some((score, index) => index > 0 && score !== inOrder[index - 1] && score - (inOrder[index - 1] ?? 0) < 2e-6);
}

function cosineDistance(left: Float32Array, right: Float32Array): number {
  let dot = 0;
  let leftSquares = 0;
  let rightSquares = 0;
  for (const [index, value] of left.entries()) {
    const other = right[index] ?? 0;
    dot += value * other;
    leftSquares += value * value;
    rightSquares += other * other;
  }
  return 1 - dot / Math.sqrt(leftSquares * rightSquares);
}

/** Reciprocal ranks of two scorings, weighted; only hits have a lexical rank, and each arm hands over its first hundred. */
function fuse(lexical: readonly number[], dense: readonly number[], weights: { dense: number; lexical: number }) {
  const ranksOf = (scores: readonly number[], isHit: (score: number) => boolean) =>
    new Map(
      scores
        .map((score, index) => ({ score, index }))
        .filter(({ score }) => isHit(score))
        .toSorted((left, right) => right.score - left.score || left.index - right.index)
        .slice(0, 100)
        .map(({ index }, rank) => [index, rank + 1]),
    );
  const lexicalRanks = ranksOf(
    lexical.map((score) => Math.round(score * 1e6) / 1e6),
    (score) => score > 0,
  );
  const denseRanks = ranksOf(
    dense.map((score) => Math.round(score * 1e6) / 1e6),
    () => true,
  );
  const reciprocal = (weight: number, rank: number | undefined) => (rank === undefined ? 0 : weight / (60 + rank));
  return lexical
    .map((_, index) => ({
      index,
      score:
        ((reciprocal(weights.dense, denseRanks.get(index)) + reciprocal(weights.lexical, lexicalRanks.get(index))) * 61) /
        (weights.dense + weights.lexical),
    }))
    .toSorted((left, right) => right.score - left.score || left.index - right.index);
}
