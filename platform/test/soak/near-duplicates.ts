/**
 * Documents that are as hard to keep apart as they come: a third bit-identical in every tenant, most of the rest 1e-3 away from another tenant's, some
 * exactly opposite, and the same paragraphs in three languages (XQuAD).
 */

import { readEvaluationSet } from '../../bench/retrieval/evaluation-set.ts';
import type { Random } from '../../src/primitives/random.ts';
import type { Attributes } from '../../src/tenancy/attributes.ts';

export interface Draft {
  readonly text: string;
  readonly embedding: Float32Array;
}

export interface DraftFile {
  readonly filename: string;
  readonly attributes: Attributes;
  readonly chunks: readonly Draft[];
}

export const chunksPerTenant = 60;
export const chunksPerFile = 10;
const identical = 20;
const opposite = 4;
const epsilon = 1e-3;
const languages = ['xquad-en', 'xquad-de', 'xquad-zh'] as const;

export class NearDuplicates {
  readonly dimensions: number;
  readonly #bases: readonly Float32Array[];
  readonly #paragraphs: readonly (readonly string[])[];
  readonly #random: Random;

  constructor(dimensions: number, random: Random) {
    this.dimensions = dimensions;
    this.#random = random;
    this.#bases = Array.from({ length: chunksPerTenant }, () => unit(Float32Array.from({ length: dimensions }, () => random.next() - 0.5)));
    this.#paragraphs = languages.map((name) => readEvaluationSet(name).documents);
  }

  /** The files of one tenant; `tenant` decides its language and its shade of difference. */
  filesOf(tenant: number): readonly DraftFile[] {
    const drafts = this.#bases.map((_, index) => this.#draft(tenant, index));
    return Array.from({ length: chunksPerTenant / chunksPerFile }, (_, part) => ({
      filename: `part-${part}.txt`,
      attributes: { part, language: languages[tenant % languages.length] ?? '', even: part % 2 === 0, shared: 'everybody' },
      chunks: drafts.slice(part * chunksPerFile, (part + 1) * chunksPerFile),
    }));
  }

  /** Another file in the same places. */
  file(tenant: number): DraftFile {
    const chunks = Array.from({ length: 3 }, () => this.#draft(tenant, Math.floor(this.#random.next() * chunksPerTenant)));
    return { filename: 'late.txt', attributes: { part: 99, even: false, shared: 'everybody' }, chunks };
  }

  /** Exactly on, near or opposite to what everybody has; anywhere; or of no direction at all. */
  question(): Draft {
    const index = Math.floor(this.#random.next() * chunksPerTenant);
    const base = this.#bases[index] ?? new Float32Array(this.dimensions);
    const text = this.#paragraphs[Math.floor(this.#random.next() * languages.length)]?.[index] ?? '';
    const shapes = [
      () => base,
      () => this.#shifted(base, epsilon),
      () => base.map((value) => -value),
      () => unit(base.map(() => this.#random.next() - 0.5)),
      () => new Float32Array(this.dimensions),
    ];
    const embedding = shapes[Math.floor(this.#random.next() * shapes.length)]?.() ?? base;
    return { text: text.slice(0, 60 + Math.floor(this.#random.next() * 200)), embedding };
  }

  #draft(tenant: number, index: number): Draft {
    const base = this.#bases[index] ?? new Float32Array(this.dimensions);
    if (index < identical) return { text: this.#paragraphs[0]?.[index] ?? '', embedding: base };
    const text = this.#paragraphs[tenant % languages.length]?.[index] ?? '';
    const isOpposite = index >= chunksPerTenant - opposite && tenant % 2 === 1;
    return { text, embedding: this.#shifted(isOpposite ? base.map((value) => -value) : base, epsilon) };
  }

  #shifted(base: Float32Array, length: number): Float32Array {
    const noise = unit(base.map(() => this.#random.next() - 0.5));
    return unit(base.map((value, at) => value + (noise[at] ?? 0) * length));
  }
}

function unit(vector: Float32Array): Float32Array {
  const norm = Math.hypot(...vector);
  return vector.map((value) => value / norm);
}
