/**
 * What a stream must keep as a whole and no schema can say. Sources: OpenAI's streaming guide and the readers of the official SDK
 * (`core/streaming`): a client indexes `choices[0]`, tells events by `event:`, and resumes by `sequence_number`.
 */
export interface StreamMessage {
  /** The `event:` line; undefined when the message has none. */
  readonly name: string | undefined;
  readonly text: string;
  /** Decoded `data:`; undefined for `[DONE]` and for what is not JSON. */
  readonly value: unknown;
}

export interface StreamRules {
  /** Faults of this message given those before it. */
  next(message: StreamMessage): readonly string[];
  /** Faults of the stream now that the server has ended it. */
  end(): readonly string[];
}

type Fields = Readonly<Record<string, unknown>>;

const endOfStream = '[DONE]';
const finalResponseEvents = new Set(['response.completed', 'response.failed', 'response.incomplete', 'error']);

/** Rules for the stream of `POST /v1/chat/completions` given what the client asked for. */
export function chatStreamRules(request: unknown): StreamRules {
  const usageAsked = fieldsOf(fieldsOf(request)['stream_options'])['include_usage'] === true;
  let firstId: unknown;
  let usageSeen = false;
  let failed = false;
  let done = false;
  return {
    next(message) {
      if (message.text === endOfStream) {
        done = true;
        return usageAsked && !usageSeen && !failed ? ['usage was asked for and no chunk carried it'] : [];
      }
      const chunk = fieldsOf(message.value);
      failed ||= chunk['error'] !== undefined;
      const faults = failed ? [] : chunkFaults(chunk, usageAsked);
      if (done) faults.push('a chunk follows [DONE]');
      firstId ??= chunk['id'];
      if (!failed && chunk['id'] !== firstId) faults.push('the chunks of one stream carry different ids');
      usageSeen ||= chunk['usage'] !== undefined && chunk['usage'] !== null;
      return faults;
    },
    end: () => (done || failed ? [] : ['the stream ended without [DONE]']),
  };
}

function chunkFaults(chunk: Fields, usageAsked: boolean): string[] {
  const faults: string[] = [];
  const isEmpty = Array.isArray(chunk['choices']) && chunk['choices'].length === 0;
  if (isEmpty && !usageAsked) faults.push('a chunk without choices, which only a client that asked for usage expects');
  if (usageAsked && !('usage' in chunk)) faults.push('usage was asked for: every chunk carries the key, null until the last');
  return faults;
}

/** Rules for the stream of `POST /v1/responses` and of a resumed response. */
export function responseStreamRules(): StreamRules {
  let previous: number | undefined;
  let ended = false;
  return {
    next(message) {
      if (message.text === endOfStream) return ended ? [] : ['[DONE] precedes the final event'];
      const event = fieldsOf(message.value);
      const faults: string[] = [];
      if (ended) faults.push('an event follows the final one');
      if (message.name !== event['type']) faults.push(`event: ${message.name} and data.type ${String(event['type'])} differ`);
      const sequence = Number(event['sequence_number']);
      if (previous !== undefined && sequence !== previous + 1) faults.push(`sequence_number ${sequence} follows ${previous}`);
      previous = sequence;
      ended = finalResponseEvents.has(String(event['type']));
      return faults;
    },
    end: () => (ended ? [] : ['the stream ended without a final event']),
  };
}

function fieldsOf(value: unknown): Fields {
  return typeof value === 'object' && value !== null ? { ...value } : {};
}
