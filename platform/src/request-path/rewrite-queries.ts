/**
 * Questions as people ask them -> what is worth searching for. By a chat model where one is configured (the tenant's own spending, admitted, queued and
 * metered like any), by rule without one. A search never fails or waits for long because of it: what cannot be rewritten is searched as it is.
 */
import { BulkheadError } from '../errors/bulkhead-error.ts';
import { rewriteByRule } from '../rag/rewrite-query.ts';
import type { InferenceCall } from './inference-call.ts';
import { type InferenceParts, serveCompletion } from './serve-inference.ts';

export interface RewritingParts extends InferenceParts {
  /** Chat model that rewrites; undefined: by rule. */
  readonly rewriteModel: string | undefined;
  readonly rewriteTimeoutMs: number;
}

export interface RewritableQuestions extends Omit<InferenceCall, 'body'> {
  readonly queries: readonly string[];
  readonly rewrite: 'always' | 'by-model' | 'never';
}

const instruction =
  'Rewrite the question for a search engine over documents. Keep names, numbers, negations and the language. Leave out greetings and phrases of asking. ' +
  'Answer with the search query alone, on one line.';
/** Longer than any search query; a model that says more has not understood. */
const answerCharactersMax = 512;
const answerTokensMax = 128;

/** In the order of the questions. Throws only when the caller is gone. */
export async function rewriteQueries(parts: RewritingParts, asked: RewritableQuestions): Promise<readonly string[]> {
  const { queries, rewrite, signal } = asked;
  const { rewriteModel: model } = parts;
  if (rewrite === 'never' || (rewrite === 'by-model' && model === undefined)) return queries;
  if (model === undefined) return queries.map(rewriteByRule);
  const untilMs = AbortSignal.timeout(parts.rewriteTimeoutMs);
  const bounded = { ...asked, signal: AbortSignal.any([signal, untilMs]) };
  const rewritten: string[] = [];
  for (const query of queries) rewritten.push(await rewriteByModel(parts, bounded, { query, model }));
  signal.throwIfAborted();
  return rewritten;
}

async function rewriteByModel(
  parts: RewritingParts,
  { scope, requestId, sessionId, endpoint, signal }: RewritableQuestions,
  { query, model }: { readonly query: string; readonly model: string },
): Promise<string> {
  const messages = [
    { role: 'system', content: instruction },
    { role: 'user', content: query },
  ];
  const body = { model, messages, temperature: 0, max_tokens: answerTokensMax };
  try {
    signal.throwIfAborted();
    const { parsed } = await serveCompletion(parts, { scope, requestId, sessionId, endpoint, signal, body });
    return queryIn(parsed) ?? query;
  } catch (error) {
    // Too slow, out of budget, not allowed, not reachable: what the tenant asked for is the search.
    if (signal.aborted || error instanceof BulkheadError) return query;
    throw error;
  }
}

function queryIn(parsed: Readonly<Record<string, unknown>>): string | undefined {
  const [choice] = (parsed['choices'] ?? []) as readonly { readonly message?: { readonly content?: unknown } }[];
  const content = choice?.message?.content;
  if (typeof content !== 'string') return undefined;
  const line = content.trim();
  return line === '' || line.includes('\n') || line.length > answerCharactersMax ? undefined : line;
}
