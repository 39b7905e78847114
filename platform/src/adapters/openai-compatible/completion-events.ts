import { BulkheadError } from '../../errors/bulkhead-error.ts';
import type { CompletionEvent } from '../../inference/provider.ts';
import type { EventInterpreter, Understood } from '../../upstream/completion-stream.ts';
import { parseObject } from '../../upstream/json-object.ts';
import type { SseEvent } from '../../upstream/sse-reader.ts';
import { malformed } from '../../upstream/upstream-failures.ts';
import { failureInBody } from './reported-failures.ts';

/** OpenAI's events are ours. Many servers leave `[DONE]` out, so a body that ends without it has ended well. */
export const openAiEvents: EventInterpreter = { understand, endEarly: () => undefined };

/** Whatever follows the first `[DONE]` is ignored, another `[DONE]` included. */
function understand(received: readonly SseEvent[]): Understood {
  const events: CompletionEvent[] = [];
  for (const event of received) {
    if (event.data === '[DONE]') return { events, failure: undefined, isDone: true };
    const read = readEvent(event);
    if (read instanceof BulkheadError) return { events, failure: read, isDone: false };
    events.push(read);
  }
  return { events, failure: undefined, isDone: false };
}

function readEvent({ data, name }: SseEvent): CompletionEvent | BulkheadError {
  const parsed = parseObject(data);
  if (parsed === undefined) return malformed('an event that is not a JSON object');
  if (name === 'error') return failureInBody({ error: parsed['error'] ?? parsed }) ?? malformed('an error event');
  const failure = failureInBody(parsed);
  if (failure !== undefined) return failure;
  // An event of several data lines is joined by line feeds, which would break the framing when it is sent on.
  return { json: data.includes('\n') ? JSON.stringify(parsed) : data, parsed };
}
