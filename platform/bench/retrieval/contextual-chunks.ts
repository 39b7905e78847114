/**
 * Contextual retrieval (Anthropic, 2024): before it is indexed, a chunk is preceded by a sentence or two that a model wrote about where in its
 * document it stands. Any OpenAI-compatible model serves; without one there is nothing to measure.
 */
import OpenAI from 'openai';
import type { EvaluationSet } from './evaluation-set.ts';

export interface ContextModel {
  readonly baseUrl: string;
  readonly model: string;
  readonly apiKey: string;
}

/** Chunks before and after the described one that stand for its document: the sets hold chunks in reading order, not documents. */
const neighboursEachSide = 6;
const contextTokensMax = 120;
const requestsAtOnce = 8;

/** `--context-url` and `--context-model`, with the key in OPENAI_API_KEY; undefined when no model is named. Throws when only one of them is. */
export function contextModelOf(options: readonly string[], apiKey: string | undefined): ContextModel | undefined {
  const optionOf = (name: string) => options.find((option) => option.startsWith(`${name}=`))?.slice(name.length + 1);
  const baseUrl = optionOf('--context-url');
  const model = optionOf('--context-model');
  if (baseUrl === undefined && model === undefined) return undefined;
  if (baseUrl === undefined || model === undefined) throw new Error('--context-url=URL and --context-model=NAME go together');
  return { baseUrl, model, apiKey: apiKey ?? 'none' };
}

/** The same set, each document preceded by what the model says of it. Throws when the model refuses or answers nothing. */
export async function withContext(set: EvaluationSet, context: ContextModel, signal: AbortSignal): Promise<EvaluationSet> {
  const client = new OpenAI({ baseURL: context.baseUrl, apiKey: context.apiKey, maxRetries: 4, timeout: 60_000 });
  const documents = [...set.documents];
  let next = 0;
  const describeSome = async () => {
    for (let index = next++; index < set.documents.length; index = next++) {
      const said = await describe(client, { model: context.model, documents: set.documents, index }, signal);
      documents[index] = `${said}\n\n${set.documents[index]}`;
    }
  };
  await Promise.all(Array.from({ length: requestsAtOnce }, describeSome));
  return { ...set, documents };
}

interface DescribedChunk {
  readonly model: string;
  readonly documents: readonly string[];
  readonly index: number;
}

async function describe(client: OpenAI, { model, documents, index }: DescribedChunk, signal: AbortSignal): Promise<string> {
  const around = documents.slice(Math.max(0, index - neighboursEachSide), index + neighboursEachSide + 1).join('\n\n');
  const content =
    `<document>\n${around}\n</document>\nHere is a chunk of it:\n<chunk>\n${documents[index]}\n</chunk>\nIn one or two sentences and in the language of ` +
    'the document, say what the chunk is about and where in the document it belongs, so that a search finds it. Answer with these sentences alone.';
  const answer = await client.chat.completions.create(
    { model, messages: [{ role: 'user', content }], max_tokens: contextTokensMax, temperature: 0 },
    { signal },
  );
  const text = answer.choices[0]?.message.content?.trim() ?? '';
  if (text === '') throw new Error(`the model said nothing about chunk ${index}`);
  return text;
}
