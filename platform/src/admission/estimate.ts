/**
 * How large a request is before it runs. Input: from its bytes, because counting costs more than it decides. Output, twice: what admission sets
 * aside (the client's cap, or a learned high quantile) and what the queue is charged in advance (a learned mean).
 */
import { LRUCache } from 'lru-cache';
import type { TenantScope } from '../tenancy/tenant-scope.ts';
import { limitsOver } from './limit-scopes.ts';

type Body = Readonly<Record<string, unknown>>;

/** English has about 4.2 bytes a token in o200k, code 3.3, Chinese 3; with a tenth on top this is rarely too low. */
const bytesPerToken = 3.5;
const safety = 1.1;
const tokensPerMessage = 4;
/** A high-detail image of 1024 x 1024 (OpenAI, vision pricing). Sound and files have no size that could be read off their bytes: the same. */
const tokensPerAttachment = 765;
const attachments: readonly unknown[] = ['image_url', 'input_audio', 'file'];

const outputDefaultTokens = 512;
const learnedScopesMax = 10_000;
const smoothing = 0.2;
/** The learned part of a reservation may hold at most this part of a minute's tokens, or a small limit would admit nothing. */
const learnedShareMax = 0.25;

/** Tokens of the request, whole and at least 1. Linear in the size of the body's texts. */
export function estimateInputTokens(body: Body): number {
  const messages = body['messages'];
  if (Array.isArray(messages)) return estimateMessages(messages, [body['tools'], body['response_format']]);
  return Math.max(1, Math.ceil(tokensOfInput(body['input'])));
}

function estimateMessages(messages: readonly Body[], attached: readonly unknown[]): number {
  let tokens = messages.length * tokensPerMessage;
  for (const message of messages) {
    tokens += tokensOfContent(message['content']);
    if (message['tool_calls'] !== undefined) tokens += tokensOfInput(JSON.stringify(message['tool_calls']));
  }
  for (const value of attached) if (value !== undefined && value !== null) tokens += tokensOfInput(JSON.stringify(value));
  return Math.max(1, Math.ceil(tokens));
}

function tokensOfContent(content: unknown): number {
  if (typeof content === 'string') return tokensOfInput(content);
  if (!Array.isArray(content)) return 0;
  return (content as readonly Body[]).reduce(
    (sum, part) => sum + (attachments.includes(part['type']) ? tokensPerAttachment : tokensOfInput(part['text'] ?? part['refusal'])),
    0,
  );
}

function tokensOfInput(input: unknown): number {
  if (typeof input === 'string') return (Buffer.byteLength(input) / bytesPerToken) * safety;
  if (typeof input === 'number') return 1;
  return Array.isArray(input) ? input.reduce((sum: number, item: unknown) => sum + tokensOfInput(item), 0) : 0;
}

export interface OutputReserve {
  readonly tokens: number;
  /** The client demanded this many; it is not clamped to what the limit could hold. */
  readonly isDemanded: boolean;
  /** No answer is longer: what money is set aside for. */
  readonly tokensMax: number;
}

export interface OutputDemand {
  readonly scope: TenantScope;
  readonly session?: string | undefined;
  readonly body: Body;
  /** Of the model. */
  readonly outputTokensMax: number;
}

export interface OutputEstimates {
  /** What admission sets aside. The largest cap counts, because a client may send several (`max_tokens`, `max_completion_tokens`). */
  reserve(demand: OutputDemand): OutputReserve;
  /** What the queue is charged in advance: the mean of what this tenant's calls to this model gave, never above the client's cap. */
  predict(scope: TenantScope, body: Body): number;
  learn(scope: TenantScope, body: Body, outputTokens: number): void;
}

interface Learned {
  mean: number;
  /** Moves up fast and down slowly: near the 90th percentile of a steady stream. */
  high: number;
}

export function createOutputEstimates(): OutputEstimates {
  const learned = new LRUCache<string, Learned>({ max: learnedScopesMax });
  return {
    reserve({ scope, session, body, outputTokensMax }) {
      const cap = capOf(body);
      const choices = typeof body['n'] === 'number' ? body['n'] : 1;
      const tokensMax = Math.min(cap ?? outputTokensMax, outputTokensMax) * choices;
      if (cap !== undefined) return { tokens: cap * choices, isDemanded: true, tokensMax };
      const expected = Math.ceil((learned.get(slotOf(scope, body))?.high ?? outputDefaultTokens) * 1.2) * choices;
      return { tokens: Math.min(expected, shareOf(scope, session)), isDemanded: false, tokensMax };
    },
    predict(scope, body) {
      const mean = learned.get(slotOf(scope, body))?.mean ?? outputDefaultTokens / 2;
      return Math.ceil(Math.min(mean, capOf(body) ?? Number.POSITIVE_INFINITY));
    },
    learn(scope, body, outputTokens) {
      const slot = slotOf(scope, body);
      const known = learned.get(slot);
      if (known === undefined) {
        learned.set(slot, { mean: outputTokens, high: outputTokens });
        return;
      }
      known.mean += smoothing * (outputTokens - known.mean);
      known.high += (outputTokens > known.high ? 0.5 : 0.05) * (outputTokens - known.high);
    },
  };
}

function capOf(body: Body): number | undefined {
  const caps = [body['max_tokens'], body['max_completion_tokens'], body['max_output_tokens']].filter((cap) => typeof cap === 'number');
  return caps.length === 0 ? undefined : Math.max(...caps);
}

function shareOf(scope: TenantScope, session: string | undefined): number {
  let least = Number.POSITIVE_INFINITY;
  for (const { tokensPerMinute = least, outputTokensPerMinute = least } of limitsOver(scope, session)) {
    least = Math.min(least, tokensPerMinute, outputTokensPerMinute);
  }
  return Math.max(1, Math.floor(least * learnedShareMax));
}

function slotOf(scope: TenantScope, body: Body): string {
  return `${scope.tenantId} ${String(body['model'])}`;
}
