/**
 * How two rankings of one store become one: constants, BM25, the distance that decides, and the fusion. Every path of a search (resident, SQL exact,
 * approximate) ranks with what is here, so the same store gives the same ids and scores, bit for bit, whichever path answers.
 *
 * Bit for bit takes care in two places. A distance computed in single precision depends on the order of its additions, and so on the machine and the path: an
 * arm therefore hands over more candidates than count, with their vectors, and `rankByDistance` orders them by a distance computed here, in double precision
 * from first to last number. A logarithm may differ in its last bit between two C libraries: `wordWeight` is kept as a whole number of 2^-20.
 */
import { assert } from '../primitives/assert.ts';

/** A chunk's place in its store. */
export interface ChunkPlace {
  readonly fileNo: number;
  readonly ordinal: number;
}

export interface RankedPlace extends ChunkPlace {
  /** Fused relevance in (0, 1]. */
  readonly score: number;
}

export interface VectorCandidate extends ChunkPlace {
  readonly vector: Float32Array;
}

/** Candidates of each arm. At least the largest limit, so that the nearest vectors alone fill every answer. */
export const armDepth = 100;
/**
 * Nearest vectors that an arm hands over for `rankByDistance`: enough that single precision drops none of the `armDepth` nearest, unless more than the
 * difference lie within its error (about 1e-6) of the last of them. Equal vectors count as one: they tie in every precision.
 */
export const candidateDepth = 128;
/** Reciprocal rank fusion, Cormack et al., SIGIR 2009. */
const rankConstant = 60;
/** Distinct words of a question that are looked up, and the rarest of them that are scored. */
export const questionTermsMax = 64;
export const scoredTermsMax = 16;
/** BM25 (Robertson and Zaragoza 2009): saturation and length normalisation. */
export const k1 = 1.2;
export const b = 0.75;
/** Scores as whole numbers: 2^24 units; one word scores less than 2.2 * ln(2^31), so a product fits 31 bits. */
export const scoreUnit = 16_777_216;
/** Weights of words as whole numbers. */
export const weightUnit = 1_048_576;
/** The vectors never weigh nothing: they complete every answer, and a score is above 0. */
const denseWeightMin = 1e-6;

/** Inverse document frequency that never turns negative, of a word that `holding` of `chunks` chunks hold. */
export function wordWeight(chunks: number, holding: number): number {
  return roundHalfEven(Math.log(1 + (chunks - holding + 0.5) / (holding + 0.5)) * weightUnit) / weightUnit;
}

/** What one word adds to a chunk's score. Each operation stands as in the SQL of `documents-search-arms.ts`, and rounds as `round(double precision)` does. */
export function wordScore(weight: number, posting: { readonly frequency: number; readonly termCount: number }, meanTerms: number): number {
  const { frequency, termCount } = posting;
  const saturated = (frequency * (k1 + 1)) / (frequency + k1 * (1 - b + (b * termCount) / meanTerms));
  return roundHalfEven(weight * saturated * scoreUnit);
}

export function meanTermsOf(store: { readonly chunkCount: number; readonly termCount: number }): number {
  return Math.max(1, store.termCount / Math.max(1, store.chunkCount));
}

/** The `armDepth` nearest to the question, nearest first, ties by place. A vector or question of length 0 is farther than every other. */
export function rankByDistance(candidates: readonly VectorCandidate[], question: Float32Array): readonly ChunkPlace[] {
  const askedSquares = squaresOf(question);
  return candidates
    .map(({ fileNo, ordinal, vector }) => ({ fileNo, ordinal, distance: cosineDistance(vector, question, askedSquares) }))
    .sort((left, right) => left.distance - right.distance || comparePlaces(left, right))
    .slice(0, armDepth);
}

export function comparePlaces(left: ChunkPlace, right: ChunkPlace): number {
  return left.fileNo - right.fileNo || left.ordinal - right.ordinal;
}

export interface Arms {
  /** Best first. */
  readonly dense: readonly ChunkPlace[];
  readonly lexical: readonly ChunkPlace[];
}

/** One ranking of at most `limit`, best first, ties by place. Words that weigh 0 are left out altogether. */
export function fuse(
  arms: Arms,
  query: { readonly weights: { dense: number; lexical: number }; readonly limit: number },
): readonly RankedPlace[] {
  const { dense, lexical } = fusionWeights(query.weights);
  const sums = new Map<string, { readonly place: ChunkPlace; dense: number; lexical: number }>();
  const entryOf = (place: ChunkPlace) => {
    const key = `${place.fileNo}:${place.ordinal}`;
    const known = sums.get(key);
    if (known !== undefined) return known;
    const entry = { place, dense: 0, lexical: 0 };
    sums.set(key, entry);
    return entry;
  };
  for (const [index, place] of arms.dense.entries()) entryOf(place).dense = dense * shareOf(index);
  if (lexical > 0) for (const [index, place] of arms.lexical.entries()) entryOf(place).lexical = lexical * shareOf(index);
  return [...sums.values()]
    .map((sum) => ({ fileNo: sum.place.fileNo, ordinal: sum.place.ordinal, score: (sum.dense + sum.lexical) / (dense + lexical) }))
    .sort((left, right) => right.score - left.score || comparePlaces(left, right))
    .slice(0, query.limit);
}

/** Of the best there is: exactly 1 for the first, so that what is first in both arms scores 1 whatever they weigh, and nothing scores more. */
function shareOf(index: number): number {
  return (rankConstant + 1) / (rankConstant + index + 1);
}

/** Whether the words of a question count at all. */
export function fusionWeights(weights: { readonly dense: number; readonly lexical: number }): {
  readonly dense: number;
  readonly lexical: number;
} {
  return { dense: Math.max(weights.dense, denseWeightMin), lexical: Math.max(weights.lexical, 0) };
}

function cosineDistance(vector: Float32Array, question: Float32Array, askedSquares: number): number {
  assert(vector.length === question.length, 'vectors of one store have one dimension');
  let dot = 0;
  let squares = 0;
  for (let index = 0; index < vector.length; index++) {
    const value = vector[index] as number;
    dot += value * (question[index] as number);
    squares += value * value;
  }
  const distance = 1 - dot / Math.sqrt(squares * askedSquares);
  return Number.isNaN(distance) ? Number.MAX_VALUE : distance;
}

function squaresOf(vector: Float32Array): number {
  let squares = 0;
  for (const value of vector) squares += value * value;
  return squares;
}

function roundHalfEven(value: number): number {
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
}
