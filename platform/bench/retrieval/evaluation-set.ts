import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';

/** Documents, and questions with the documents that answer them; see platform/data/retrieval/README.md. */
export interface EvaluationSet {
  readonly name: EvaluationSetName;
  /** Text search configuration. */
  readonly language: string;
  readonly documents: readonly string[];
  readonly questions: readonly LabelledQuestion[];
}

export interface LabelledQuestion {
  readonly text: string;
  /** Indexes into `documents`; at least one. */
  readonly relevant: readonly number[];
}

export const evaluationSetNames = ['xquad-en', 'xquad-de', 'xquad-zh', 'codebase', 'documentation'] as const;
export type EvaluationSetName = (typeof evaluationSetNames)[number];

export function readEvaluationSet(name: EvaluationSetName): EvaluationSet {
  const file = new URL(`../../data/retrieval/${name}.json.gz`, import.meta.url);
  return { name, ...(JSON.parse(gunzipSync(readFileSync(file)).toString('utf8')) as Omit<EvaluationSet, 'name'>) };
}
