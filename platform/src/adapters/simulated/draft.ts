import { decodeTokens, encodeTokens } from '../../primitives/count-tokens.ts';
import type { Random } from '../../primitives/random.ts';
import { composeAnswer } from './answer-text.ts';
import { callEverything, repeatPrompt } from './obedience.ts';
import type { Prompt } from './prompt.ts';
import { valueForSchema } from './schema-value.ts';
import { type DraftedCall, draftCall, offeredTools } from './tool-calls.ts';

/** One step of generation: what a stream sends in one event. */
export interface Piece {
  /** `undefined` for the answer's text, else the index of the tool call whose arguments it continues. */
  readonly call: number | undefined;
  readonly text: string;
  readonly tokens: number;
}

/** One choice, thought out to its end before the first token leaves. */
export interface Draft {
  readonly pieces: readonly Piece[];
  readonly calls: readonly DraftedCall[];
  readonly reasoningTokens: number;
  /** Reasoning included. */
  readonly outputTokens: number;
  readonly finishReason: 'stop' | 'length' | 'tool_calls';
}

export interface DraftRequest {
  readonly body: Readonly<Record<string, unknown>>;
  readonly prompt: Prompt;
  readonly random: Random;
  readonly isObedient: boolean;
  readonly isReasoning: boolean;
}

export function draftChoice(request: DraftRequest): Draft {
  const limit = outputLimit(request.body);
  const reasoningTokens = request.isReasoning ? Math.min(limit, reasoningLength(request)) : 0;
  const calls = draftCalls(request);
  const text = calls.length > 0 && !request.isObedient ? '' : draftText(request);
  const whole = [...piecesOf(text, undefined), ...calls.flatMap((call, index) => piecesOf(call.arguments, index))];
  const { pieces, tokens } = cutAt(whole, limit - reasoningTokens);
  const isCut = pieces.length < whole.length;
  const begunCalls = calls.filter((_, index) => pieces.some((piece) => piece.call === index));
  const finishReason = isCut ? 'length' : calls.length > 0 ? 'tool_calls' : 'stop';
  return { pieces, calls: begunCalls, reasoningTokens, outputTokens: reasoningTokens + tokens, finishReason };
}

/** Most tokens the request allows for one choice. */
export function outputLimit(body: DraftRequest['body']): number {
  const limit = body['max_completion_tokens'] ?? body['max_tokens'];
  return typeof limit === 'number' && limit >= 1 ? Math.floor(limit) : Number.POSITIVE_INFINITY;
}

function draftCalls({ body, prompt, random, isObedient }: DraftRequest): readonly DraftedCall[] {
  const tools = offeredTools(body);
  if (isObedient) return callEverything(tools, prompt, random);
  if (prompt.toolResult !== undefined) return [];
  const call = draftCall(tools, prompt, random);
  return call === undefined ? [] : [call];
}

function draftText(request: DraftRequest): string {
  const { body, prompt, random, isObedient } = request;
  const text = isObedient ? repeatPrompt(prompt) : composeAnswer(prompt, random);
  const format = body['response_format'];
  if (typeof format !== 'object' || format === null || !('type' in format)) return beforeStop(text, body['stop']);
  switch (format.type) {
    case 'json_object':
      return JSON.stringify({ simulated: true, answer: text });
    case 'json_schema':
      return JSON.stringify(valueForSchema(schemaOf(format), { random, text: (name) => (name === '' ? text : `simulated ${name}`) }));
    default:
      return beforeStop(text, body['stop']);
  }
}

function schemaOf(format: object): unknown {
  const described: unknown = 'json_schema' in format ? format.json_schema : undefined;
  return typeof described === 'object' && described !== null && 'schema' in described ? described.schema : {};
}

/** The text up to the first stop sequence, which is not part of it. */
function beforeStop(text: string, stop: unknown): string {
  const sequences = (Array.isArray(stop) ? stop : [stop]).filter((entry) => typeof entry === 'string' && entry !== '');
  const ends = sequences.map((sequence) => text.indexOf(sequence)).filter((index) => index >= 0);
  return ends.length === 0 ? text : text.slice(0, Math.min(...ends));
}

const reasoningTokensByEffort: Readonly<Record<string, number>> = {
  none: 0,
  minimal: 16,
  low: 64,
  medium: 192,
  high: 512,
  xhigh: 1_024,
  max: 2_048,
};

function reasoningLength({ body, random }: DraftRequest): number {
  const effort = body['reasoning_effort'];
  const most = reasoningTokensByEffort[typeof effort === 'string' ? effort : 'medium'] ?? 192;
  return Math.round(most * (0.5 + random.next() / 2));
}

const replacement = '\ufffd';
/** A character has at most four bytes, so it is spread over at most four tokens. */
const tokensPerCharacterMax = 4;

/** A piece for each token; tokens that share a character stay together. */
function piecesOf(text: string, call: number | undefined): readonly Piece[] {
  const pieces: Piece[] = [];
  let waiting: number[] = [];
  for (const token of encodeTokens(text)) {
    waiting.push(token);
    const decoded = decodeTokens(waiting);
    if (decoded.endsWith(replacement) && waiting.length < tokensPerCharacterMax) continue;
    pieces.push({ call, text: decoded, tokens: waiting.length });
    waiting = [];
  }
  if (waiting.length > 0) pieces.push({ call, text: decodeTokens(waiting), tokens: waiting.length });
  return pieces;
}

function cutAt(pieces: readonly Piece[], tokensMax: number): { readonly pieces: readonly Piece[]; readonly tokens: number } {
  let tokens = 0;
  for (const [index, piece] of pieces.entries()) {
    if (tokens + piece.tokens > tokensMax) return { pieces: pieces.slice(0, index), tokens };
    tokens += piece.tokens;
  }
  return { pieces, tokens };
}
