import { BulkheadError } from '../errors/bulkhead-error.ts';
import { countTokens } from '../primitives/count-tokens.ts';

/** Tokens a chat template adds to each message, and to the whole; OpenAI's cookbook figure for its own models. */
const tokensPerMessage = 3;
const tokensPerReply = 3;

/**
 * Refuses a prompt that cannot fit, before any upstream call, with the counts. The cheap estimate decides when it is far from the
 * limit (it is within a factor of two); near the limit the tokens are counted.
 */
export function assertFitsContext(body: Readonly<Record<string, unknown>>, estimatedTokens: number, contextTokens: number): void {
  if (estimatedTokens * 2 < contextTokens) return;
  const promptTokens = countPromptTokens(body);
  const answerTokens = demandedAnswerTokens(body);
  if (promptTokens + answerTokens <= contextTokens) return;
  const answer = answerTokens > 0 ? ` (${promptTokens} in the messages, ${answerTokens} in the completion)` : '';
  throw new BulkheadError(
    'context_length_exceeded',
    `This model's maximum context length is ${contextTokens} tokens. However, you requested ${promptTokens + answerTokens} tokens${answer}.`,
    {
      param: Array.isArray(body['messages']) ? 'messages' : 'input',
      details: { context_tokens: contextTokens, prompt_tokens: promptTokens, completion_tokens: answerTokens },
    },
  );
}

function countPromptTokens(body: Readonly<Record<string, unknown>>): number {
  const messages = body['messages'];
  if (!Array.isArray(messages)) return countTokens(textOf(body['input']));
  let total = tokensPerReply;
  for (const message of messages as readonly Record<string, unknown>[]) {
    total += tokensPerMessage + countTokens(`${String(message['role'])}${textOf(message['content'])}`);
  }
  const tools = body['tools'];
  return tools === undefined || tools === null ? total : total + countTokens(JSON.stringify(tools));
}

function demandedAnswerTokens(body: Readonly<Record<string, unknown>>): number {
  const caps = [body['max_completion_tokens'], body['max_tokens']].filter((cap) => typeof cap === 'number');
  return Math.max(0, ...caps);
}

function textOf(content: unknown): string {
  if (typeof content === 'string') return content;
  if (!Array.isArray(content)) return '';
  return content.map(textOfPart).join('');
}

function textOfPart(part: unknown): string {
  if (typeof part === 'string') return part;
  const text = typeof part === 'object' && part !== null ? (part as Record<string, unknown>)['text'] : undefined;
  return typeof text === 'string' ? text : '';
}
