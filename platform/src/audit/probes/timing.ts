/**
 * Whether a foreign thing takes longer than an absent one. Both are asked for in adjacent pairs, in random order within the pair, and compared by
 * an exact sign test: load that drifts moves both alike. A finding needs p < 0.0001 AND medians apart by 0.3 ms and a tenth, twice in a row on fresh
 * samples; even then it is INCONCLUSIVE, because a clock is no proof. By chance alone that happens once in 100 million questions.
 */
import { randomInt } from 'node:crypto';
import type { AuditRequest } from '../audit-ports.ts';
import type { TimingResult } from '../audit-report.ts';
import { absentIds, type Pair, type ProbeContext } from './probe-context.ts';

const samplePairs = 40;
const pMax = 0.0001;
const differenceMinMs = 0.3;
const differenceMinShare = 0.1;

interface Question {
  readonly question: string;
  readonly request: (ids: { readonly storeId: string; readonly fileId: string }) => AuditRequest;
}

const questions: readonly Question[] = [
  { question: 'GET a file', request: ({ fileId }) => ({ method: 'GET', path: `/v1/files/${fileId}` }) },
  {
    question: 'search a store',
    request: ({ storeId }) => ({ method: 'POST', path: `/v1/vector_stores/${storeId}/search`, body: { query: 'vault' } }),
  },
];

export async function probeTiming(context: ProbeContext): Promise<readonly TimingResult[]> {
  const [pair] = context.pairs;
  if (context.kind === 'smoke' || pair === undefined) return [];
  const results: TimingResult[] = [];
  for (const question of questions) {
    const first = await measure(pair, question);
    const result = isSuspicious(first) ? await measure(pair, question) : first;
    results.push(result);
    addTiming(context, pair, result);
  }
  return results;
}

function addTiming({ book }: ProbeContext, { attacker, victim }: Pair, result: TimingResult): void {
  const { question, foreignMedianMs, absentMedianMs, p } = result;
  book.add({
    id: 'F4',
    surface: 'files',
    attacker: attacker.name,
    victim: victim.name,
    attempt: `${question}: time of a foreign id against an absent one`,
    expected: 'no difference that the clock can tell',
    got: `${foreignMedianMs.toFixed(2)} against ${absentMedianMs.toFixed(2)} ms, p = ${p.toPrecision(2)}`,
    control: true,
    leaked: false,
    unclear: isSuspicious(result),
    ms: foreignMedianMs,
  });
}

function isSuspicious({ foreignMedianMs, absentMedianMs, p }: TimingResult): boolean {
  const difference = Math.abs(foreignMedianMs - absentMedianMs);
  return p < pMax && difference > differenceMinMs && difference > differenceMinShare * Math.min(foreignMedianMs, absentMedianMs);
}

async function measure({ attacker, victim }: Pair, { question, request }: Question): Promise<TimingResult> {
  const foreign: number[] = [];
  const absent: number[] = [];
  for (let sample = 0; sample < samplePairs; sample++) {
    const isForeignFirst = randomInt(2) === 0;
    for (const isForeign of [isForeignFirst, !isForeignFirst]) {
      const { durationMs } = await attacker.caller.ask(request(isForeign ? victim.ids : absentIds));
      (isForeign ? foreign : absent).push(durationMs);
    }
  }
  const longer = foreign.filter((ms, index) => ms > (absent[index] ?? 0)).length;
  return {
    question,
    pairs: samplePairs,
    foreignMedianMs: median(foreign),
    absentMedianMs: median(absent),
    p: signTest(longer, samplePairs),
  };
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((left, right) => left - right);
  return sorted[Math.floor(sorted.length / 2)] ?? 0;
}

/** Two-sided exact binomial test: how likely as lopsided a count is when neither side is slower. */
export function signTest(longer: number, pairs: number): number {
  const extreme = Math.max(longer, pairs - longer);
  let tail = 0;
  let choose = 1;
  for (let count = pairs; count >= extreme; count--) {
    tail += choose;
    choose = (choose * count) / (pairs - count + 1);
  }
  return Math.min(1, (2 * tail) / 2 ** pairs);
}
