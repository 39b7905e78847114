/** The comparison itself: its data is as adversarial as it says, its brute force can tell a wrong answer, and its loader makes what ingestion makes. */
import { describe, expect, it } from 'vitest';
import { loadTenant, openBulkhead } from '../../bench/retrieval/comparison/bulkhead.ts';
import { measureSystem } from '../../bench/retrieval/comparison/measure.ts';
import { trueNearest } from '../../bench/retrieval/comparison/true-nearest.ts';
import { type BenchTenant, Workload } from '../../bench/retrieval/comparison/workload.ts';
import { dimensions, Library } from '../retrieval/library.ts';

const shape = { tenants: 40, vectors: 1_200, dimensions, seed: 7, wordsPerChunk: 12 };

describe('the workload of the comparison', () => {
  const workload = new Workload(shape);

  it('is the same for the same seed, of unit vectors, sized by Zipf', () => {
    const again = new Workload(shape);
    const [largest, second] = workload.tenants;
    expect(workload.tenants.reduce((sum, { size }) => sum + size, 0)).toBeGreaterThan(1_150);
    expect((largest?.size ?? 0) / (second?.size ?? 1)).toBeCloseTo(2, 1);
    for (const tenant of workload.tenants.slice(0, 3)) {
      const vectors = workload.vectorsOf(tenant);
      expect(vectors).toEqual(again.vectorsOf(tenant));
      expect(Math.hypot(...vectors.subarray(0, dimensions))).toBeCloseTo(1, 5);
      expect(workload.textOf(tenant, 0)).toBe(again.textOf(tenant, 0));
    }
  });

  it('has other tenants nearest to most questions of small ones', () => {
    const many = new Workload({ ...shape, tenants: 200, vectors: 10_000, dimensions: 64 });
    const questions = many.questionsOf('to 100', 40);
    const foreign = questions.filter((question) => {
      const own = bestCosine(many, question.tenant, question.vector);
      return many.tenants.some((tenant) => tenant !== question.tenant && bestCosine(many, tenant, question.vector) > own);
    });
    expect(foreign.length).toBeGreaterThan(questions.length / 2);
  });

  it('knows a wrong answer, and counts no vector twice', () => {
    const [question] = workload.questions(1);
    if (question === undefined) throw new Error('no question');
    const truth = trueNearest(workload, question, 10);
    const all = Array.from({ length: question.tenant.size }, (_, index) => index);
    const right = all.filter((index) => truth.hitsOf([index]) === 1);
    expect(right.length).toBeGreaterThanOrEqual(truth.possible);
    expect(truth.hitsOf(all.filter((index) => !right.includes(index)))).toBe(0);
    expect(truth.hitsOf(Array.from({ length: 10 }, () => right[0] ?? 0))).toBe(1);
  });
});

describe('the product in the comparison', () => {
  it('finds exactly what brute force finds, and is never short', { timeout: 240_000 }, async () => {
    await using system = await openBulkhead({ engine: 'embedded', dimensions });
    const options = { ...shape, system: 'bulkhead-embedded', questionsPerClass: 20, secondsPerRound: 0.2, concurrency: 2 } as const;
    const { classes } = await measureSystem(system, options);
    expect(classes.length).toBeGreaterThan(1);
    for (const measured of classes) expect(measured).toMatchObject({ recall: 1, short: 0 });
  });

  it('is loaded with the rows that ingestion writes', { timeout: 240_000 }, async () => {
    await using library = await Library.open({ embedding: { model: 'local-hash-384', dimensions } });
    const workload = new Workload(shape);
    const tenant: BenchTenant = { rank: 0, name: 'loaded', size: 5, sizeClass: 'to 100' };
    await loadTenant(library, workload, tenant);
    await library.storeOf(
      'ingested',
      Array.from({ length: tenant.size }, (_, index) => workload.textOf(tenant, index)),
    );
    const counts = (name: string) =>
      library.truth(
        `SELECT (SELECT chunk_count FROM app.vector_store WHERE tenant_id = $1) AS chunks, (SELECT term_count FROM app.vector_store WHERE tenant_id = $1) AS terms,
                (SELECT count(*) FROM app.embedding_384 WHERE tenant_id = $1) AS vectors,
                (SELECT json_agg(json_build_array(lexeme, frequency, term_count) ORDER BY lexeme, frequency, term_count) FROM app.posting WHERE tenant_id = $1) AS words`,
        [name],
      );
    expect(await counts('loaded')).toEqual(await counts('ingested'));
  });
});

function bestCosine(workload: Workload, tenant: BenchTenant, question: Float32Array): number {
  const vectors = workload.vectorsOf(tenant);
  let best = -1;
  for (let index = 0; index < tenant.size; index++) {
    let sum = 0;
    for (let at = 0; at < question.length; at++) sum += (vectors[index * question.length + at] ?? 0) * (question[at] ?? 0);
    best = Math.max(best, sum);
  }
  return best;
}
