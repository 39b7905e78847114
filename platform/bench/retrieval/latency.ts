import { seededRandom } from '../../src/primitives/random.ts';
import type { HybridQuery } from '../../src/tenancy/capabilities.ts';
import { type Library, question } from '../../test/retrieval/library.ts';
import { type EvaluationSet, readEvaluationSet } from './evaluation-set.ts';
import { indexDocuments } from './ranking-quality.ts';

export interface Latency {
  readonly chunks: number;
  readonly wordsPerChunk: number;
  readonly plain: Percentiles;
  /** With an attribute filter that lets everything through. */
  readonly filtered: Percentiles;
  /** Time of the database for one chunk, vector and words. */
  readonly indexingMs: number;
}

export interface Percentiles {
  readonly p50: number;
  readonly p99: number;
}

const searches = 300;

/** A store of `chunks` paragraphs recombined from XQuAD, asked XQuAD's questions; a neighbour in the same database holds 2,000 more. */
export async function measureLatency(library: Library, chunks: number): Promise<Latency> {
  const set = readEvaluationSet('xquad-en');
  await indexDocuments(library, 'neighbour', recombined(set, 2_000));
  const documents = recombined(set, chunks);
  const started = performance.now();
  const { vectorStores, storeId } = await indexDocuments(library, 'measured', documents);
  const indexingMs = (performance.now() - started) / chunks;
  const time = async (changes: Partial<HybridQuery>) => {
    const times: number[] = [];
    for (let index = 0; index < searches; index++) {
      const asked = question(set.questions[index % set.questions.length]?.text ?? '', changes);
      const from = performance.now();
      await vectorStores.search(storeId, asked);
      times.push(performance.now() - from);
    }
    return percentilesOf(times);
  };
  const words = documents.documents.reduce((sum, text) => sum + text.split(/\s+/).length, 0) / chunks;
  const plain = await time({});
  const filtered = await time({ filter: { type: 'ne', key: 'absent', value: 1 } });
  return { chunks, wordsPerChunk: Math.round(words), plain, filtered, indexingMs };
}

function recombined(set: EvaluationSet, count: number): Pick<EvaluationSet, 'documents' | 'language'> {
  const random = seededRandom(count);
  const sentences = set.documents.flatMap((text) => text.split(/(?<=\.) /));
  const pick = () => sentences[Math.floor(random.next() * sentences.length)] ?? '';
  return { language: set.language, documents: Array.from({ length: count }, () => Array.from({ length: 5 }, pick).join(' ')) };
}

function percentilesOf(times: readonly number[]): Percentiles {
  const sorted = times.toSorted((left, right) => left - right);
  return { p50: sorted[Math.floor(sorted.length * 0.5)] ?? 0, p99: sorted[Math.floor(sorted.length * 0.99)] ?? 0 };
}
