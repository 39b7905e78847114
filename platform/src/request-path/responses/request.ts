/** The Responses request after validation: what `POST /v1/responses` understood. Names are OpenAI's in camel case. */
import type { RetrievalWeights } from '../../rag/retrieve.ts';
import type { AttributeFilter } from '../../tenancy/attributes.ts';

export type JsonRecord = Readonly<Record<string, unknown>>;

export interface ResponseRequest {
  readonly model: string;
  /** Items as given; a plain string has become one user message. */
  readonly input: readonly JsonRecord[];
  readonly instructions: string | null;
  readonly previousResponseId: string | null;
  readonly store: boolean;
  readonly stream: boolean;
  readonly tools: readonly JsonRecord[];
  readonly toolChoice: string | JsonRecord;
  readonly fileSearch: FileSearchTool | undefined;
  readonly parallelToolCalls: boolean;
  readonly maxOutputTokens: number | null;
  readonly temperature: number | null;
  readonly topP: number | null;
  readonly topLogprobs: number | null;
  readonly text: JsonRecord;
  readonly reasoning: JsonRecord | null;
  readonly truncation: string;
  readonly serviceTier: string | null;
  readonly metadata: Readonly<Record<string, string>>;
  readonly include: readonly string[];
  readonly safetyIdentifier: string | null;
  readonly promptCacheKey: string | null;
  readonly user: string | null;
}

export interface FileSearchTool {
  readonly vectorStoreIds: readonly string[];
  readonly maxNumResults: number;
  readonly scoreThreshold: number;
  /** Undefined: as configured. */
  readonly weights: RetrievalWeights | undefined;
  readonly filter: AttributeFilter | undefined;
}
