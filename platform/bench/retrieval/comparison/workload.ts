/**
 * Synthetic tenants for the comparison: sizes by Zipf's law, vectors around facts that tenants share, so that the nearest vectors of a question are
 * mostly another tenant's, and texts whose words follow the same topics. Nothing is kept: the same seed makes the same vector again.
 */
import { seededRandom } from '../../../src/primitives/random.ts';

export interface WorkloadOptions {
  readonly tenants: number;
  readonly vectors: number;
  readonly dimensions: number;
  readonly seed: number;
  readonly wordsPerChunk: number;
}

export type SizeClass = 'to 100' | 'to 1,000' | 'to 10,000' | 'whales';
export const sizeClasses: readonly SizeClass[] = ['to 100', 'to 1,000', 'to 10,000', 'whales'];

export interface BenchTenant {
  /** 0 is the largest. */
  readonly rank: number;
  readonly name: string;
  readonly size: number;
  readonly sizeClass: SizeClass;
}

export interface Question {
  readonly tenant: BenchTenant;
  readonly vector: Float32Array;
  readonly text: string;
}

const topics = 200;
const factsPerTopic = 100;
const topicWords = 200;
const generalWords = 20_000;
/** Lengths of the noise around centroids and facts, which have length 1. Two chunks of one fact are at a cosine of 0.94, two facts of one topic at 0.67. */
const factNoise = 0.7;
const chunkNoise = 0.25;
const questionNoise = 0.35;
const questionWords = 8;
const noisePool = 1 << 20;

export class Workload {
  readonly options: WorkloadOptions;
  readonly tenants: readonly BenchTenant[];
  readonly #noise: Float32Array;
  readonly #facts = new Map<number, Float32Array>();

  constructor(options: WorkloadOptions) {
    this.options = options;
    this.tenants = zipfSizes(options.tenants, options.vectors).map((size, rank) => ({
      rank,
      size,
      name: `bench-${String(rank).padStart(5, '0')}`,
      sizeClass: classOf(size),
    }));
    const random = seededRandom(options.seed);
    // Three uniform numbers are near enough to a normal one here.
    this.#noise = Float32Array.from({ length: noisePool }, () => (random.next() + random.next() + random.next() - 1.5) * 2);
  }

  /** [vector][dimension], each of length 1. */
  vectorsOf(tenant: BenchTenant, from = 0, to = tenant.size): Float32Array {
    const { dimensions } = this.options;
    const vectors = new Float32Array((to - from) * dimensions);
    for (let index = from; index < to; index++) {
      const random = this.#randomOf(1, tenant.rank, index);
      const at = (index - from) * dimensions;
      this.#near(this.#fact(factOf(tenant, random.next(), random.next())), chunkNoise, {
        random: random.next(),
        into: vectors.subarray(at, at + dimensions),
      });
    }
    return vectors;
  }

  textOf(tenant: BenchTenant, index: number): string {
    const random = this.#randomOf(1, tenant.rank, index);
    const topic = Math.floor(factOf(tenant, random.next(), random.next()) / factsPerTopic);
    const words = seededRandom(mixed(this.options.seed, 2, tenant.rank, index));
    return wordsOf(topic, this.options.wordsPerChunk, words);
  }

  /** Questions of tenants of one size, the larger ones more often. Empty when there is none of that size. */
  questionsOf(sizeClass: SizeClass, count: number): readonly Question[] {
    const tenants = this.tenants.filter((tenant) => tenant.sizeClass === sizeClass);
    return tenants.length === 0 ? [] : this.#questions(tenants, count);
  }

  /** Questions of tenants up to a size, by Zipf's law as of all. */
  questionsUpTo(sizeMax: number, count: number): readonly Question[] {
    return this.#questions(
      this.tenants.filter(({ size }) => size <= sizeMax),
      count,
    );
  }

  /** Questions of all tenants, by Zipf's law too. */
  questions(count: number): readonly Question[] {
    return this.#questions(this.tenants, count);
  }

  #questions(tenants: readonly BenchTenant[], count: number): readonly Question[] {
    const random = this.#randomOf(3, tenants.length, count);
    let total = 0;
    const upTo = tenants.map(({ rank }) => {
      total += 1 / (rank + 1);
      return total;
    });
    return Array.from({ length: count }, () => {
      const chance = random.next() * total;
      const tenant = tenants[upTo.findIndex((end) => chance < end)];
      if (tenant === undefined) throw new Error('there are no tenants');
      const fact = factOf(tenant, random.next(), random.next());
      const vector = new Float32Array(this.options.dimensions);
      this.#near(this.#fact(fact), questionNoise, { random: random.next(), into: vector });
      return { tenant, vector, text: wordsOf(Math.floor(fact / factsPerTopic), questionWords, random) };
    });
  }

  /** Kept: there are 20,000 of them at most. */
  #fact(fact: number): Float32Array {
    const known = this.#facts.get(fact);
    if (known !== undefined) return known;
    const { dimensions } = this.options;
    const centroid = new Float32Array(dimensions);
    this.#near(new Float32Array(dimensions), 1, { random: this.#randomOf(4, Math.floor(fact / factsPerTopic), 0).next(), into: centroid });
    const made = new Float32Array(dimensions);
    this.#near(centroid, factNoise, { random: this.#randomOf(5, fact, 0).next(), into: made });
    this.#facts.set(fact, made);
    return made;
  }

  /** `center` plus noise of that length, made length 1. */
  #near(center: Float32Array, length: number, { random, into }: { readonly random: number; readonly into: Float32Array }): void {
    const offset = Math.floor(random * (noisePool - into.length));
    const scale = length / Math.sqrt(into.length);
    let squares = 0;
    for (let at = 0; at < into.length; at++) {
      const value = (center[at] ?? 0) + (this.#noise[offset + at] ?? 0) * scale;
      into[at] = value;
      squares += value * value;
    }
    const norm = Math.sqrt(squares);
    for (let at = 0; at < into.length; at++) into[at] = (into[at] ?? 0) / norm;
  }

  #randomOf(stream: number, first: number, second: number) {
    return seededRandom(mixed(this.options.seed, stream, first, second));
  }
}

/** A tenant is about some topics, more of them the larger it is, and everybody draws from the same ones. */
function factOf({ rank, size }: BenchTenant, topicChance: number, factChance: number): number {
  const own = Math.min(topics, 3 + Math.floor(size / 300));
  const topic = mixed(rank, Math.floor(topicChance * own), 0, 0) % topics;
  return topic * factsPerTopic + Math.floor(factChance * factsPerTopic);
}

/** Three words of five are the topic's, the rest anybody's; frequent words are frequent. */
function wordsOf(topic: number, count: number, random: { next(): number }): string {
  const zipf = (size: number) => Math.floor(size ** random.next()) - 1;
  return Array.from({ length: count }, () =>
    random.next() < 0.6 ? word(generalWords + topic * topicWords + zipf(topicWords)) : word(zipf(generalWords)),
  ).join(' ');
}

const syllables = ['ba', 'ko', 'mi', 'ru', 'ta', 'ze', 'lo', 'pi', 'na', 'vu', 'ga', 'sho', 'fe', 'dri', 'ky', 'wo'];

/** A word of no language: no stop word, nothing to stem. */
function word(number: number): string {
  let text = '';
  for (let left = number + 256; left > 0; left >>= 4) text += syllables[left & 15];
  return `${text}q`;
}

function zipfSizes(tenants: number, vectors: number): readonly number[] {
  const harmonic = Array.from({ length: tenants }, (_, rank) => 1 / (rank + 1)).reduce((sum, share) => sum + share, 0);
  return Array.from({ length: tenants }, (_, rank) => Math.max(1, Math.round(vectors / harmonic / (rank + 1))));
}

function classOf(size: number): SizeClass {
  if (size <= 100) return 'to 100';
  if (size <= 1_000) return 'to 1,000';
  return size <= 10_000 ? 'to 10,000' : 'whales';
}

function mixed(...parts: readonly [number, number, number, number]): number {
  let state = 0x9e3779b9;
  for (const part of parts) {
    state = Math.imul(state ^ part, 0x85ebca6b);
    state ^= state >>> 13;
    state = Math.imul(state, 0xc2b2ae35);
    state ^= state >>> 16;
  }
  return state >>> 0;
}
