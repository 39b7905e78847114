/** Google's Gemini API as its documentation has it (ai.google.dev/api/generate-content), on top of a scripted HTTP server. */
import type { ServerResponse } from 'node:http';
import { answer, type UpstreamScript } from './scripted-upstream.ts';

export type GeminiPart = Readonly<Record<string, unknown>>;

export const geminiKey = 'AIzaSyD-secret-of-the-operator-0123456789';

export interface GeminiAnswer {
  readonly parts?: readonly GeminiPart[];
  readonly finishReason?: string;
  readonly usage?: Readonly<Record<string, unknown>>;
  readonly rest?: Readonly<Record<string, unknown>>;
}

const counted = { promptTokenCount: 11, candidatesTokenCount: 7, totalTokenCount: 18 };

/** A `GenerateContentResponse`; without parts and a reason it has no candidate. */
export function response({ parts, finishReason, usage, rest }: GeminiAnswer): Readonly<Record<string, unknown>> {
  const content = { parts: parts ?? [], role: 'model' };
  const hasCandidate = parts !== undefined || finishReason !== undefined;
  return {
    ...(hasCandidate && { candidates: [{ content, index: 0, ...(finishReason !== undefined && { finishReason }) }] }),
    ...(usage !== undefined && { usageMetadata: usage }),
    modelVersion: 'gemini-test-001',
    responseId: 'kT9aZ8',
    ...rest,
  };
}

/** Answers whole requests with these parts and streams them one to an event. */
export function generating(parts: readonly GeminiPart[], finishReason = 'STOP', usage: GeminiAnswer['usage'] = counted): UpstreamScript {
  return async (sent, request) => {
    const isStream = request.path.includes(':streamGenerateContent');
    if (!isStream) return answer(200, response({ parts, finishReason, usage }))(sent, request);
    beginGemini(sent);
    for (const [index, part] of parts.entries()) {
      const isLast = index === parts.length - 1;
      sent.write(geminiEvent(response({ parts: [part], usage, ...(isLast && { finishReason }) })));
    }
    sent.end();
  };
}

export function beginGemini(sent: ServerResponse): void {
  sent.writeHead(200, { 'content-type': 'text/event-stream' }).flushHeaders();
}

export function geminiEvent(data: unknown): string {
  return `data: ${JSON.stringify(data)}\r\n\r\n`;
}

/** `google.rpc.Status` with details. */
export function geminiFailure(status: number, name: string, message: string, details: readonly unknown[] = []): UpstreamScript {
  return answer(status, { error: { code: status, message, status: name, details } });
}
