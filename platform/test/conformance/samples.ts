/** Answers as OpenAI gives them, smallest first. Each conforms; the self-tests of the kit break them one fault at a time. */
const usage = {
  prompt_tokens: 9,
  completion_tokens: 2,
  total_tokens: 11,
  prompt_tokens_details: { cached_tokens: 0, audio_tokens: 0, cache_write_tokens: 0 },
  completion_tokens_details: { reasoning_tokens: 0, audio_tokens: 0, accepted_prediction_tokens: 0, rejected_prediction_tokens: 0 },
};

export function chatCompletion() {
  return {
    id: 'chatcmpl-1',
    object: 'chat.completion',
    created: 1_767_225_600,
    model: 'gpt-4o-mini',
    choices: [{ index: 0, message: { role: 'assistant', content: 'Hello.', refusal: null }, logprobs: null, finish_reason: 'stop' }],
    usage,
  };
}

/** @param fields - what differs from the first chunk: `choices`, `usage`, `id`. */
export function chatChunk(fields: Readonly<Record<string, unknown>> = {}) {
  return {
    id: 'chatcmpl-1',
    object: 'chat.completion.chunk',
    created: 1_767_225_600,
    model: 'gpt-4o-mini',
    choices: [{ index: 0, delta: { role: 'assistant', content: 'Hello.' }, logprobs: null, finish_reason: null }],
    ...fields,
  };
}

export function lastChatChunk(fields: Readonly<Record<string, unknown>> = {}) {
  return chatChunk({ choices: [{ index: 0, delta: {}, logprobs: null, finish_reason: 'stop' }], ...fields });
}

export function usageChunk() {
  return chatChunk({ choices: [], usage });
}

function outputMessage(text: string) {
  return {
    id: 'msg_1',
    type: 'message',
    role: 'assistant',
    status: 'completed',
    content: [{ type: 'output_text', text, annotations: [], logprobs: [] }],
  };
}

export function response(fields: Readonly<Record<string, unknown>> = {}) {
  return {
    id: 'resp_1',
    object: 'response',
    created_at: 1_767_225_600,
    completed_at: 1_767_225_601,
    status: 'completed',
    error: null,
    incomplete_details: null,
    instructions: null,
    max_output_tokens: null,
    model: 'gpt-4o-mini',
    output: [outputMessage('Hello.')],
    parallel_tool_calls: true,
    previous_response_id: null,
    reasoning: { effort: null, summary: null },
    store: true,
    temperature: 1,
    text: { format: { type: 'text' } },
    tool_choice: 'auto',
    tools: [],
    top_p: 1,
    truncation: 'disabled',
    usage: {
      input_tokens: 9,
      input_tokens_details: { cached_tokens: 0, cache_write_tokens: 0 },
      output_tokens: 2,
      output_tokens_details: { reasoning_tokens: 0 },
      total_tokens: 11,
    },
    metadata: {},
    ...fields,
  };
}

/** The events of one streamed response, in order. */
export function responseEvents() {
  const started = response({ status: 'in_progress', completed_at: null, output: [], usage: undefined });
  const at = { item_id: 'msg_1', output_index: 0, content_index: 0 };
  const part = { type: 'output_text', text: '', annotations: [], logprobs: [] };
  return [
    { type: 'response.created', response: started },
    { type: 'response.in_progress', response: started },
    { type: 'response.output_item.added', output_index: 0, item: { ...outputMessage(''), status: 'in_progress', content: [] } },
    { type: 'response.content_part.added', ...at, part },
    { type: 'response.output_text.delta', ...at, delta: 'Hello.', logprobs: [] },
    { type: 'response.output_text.done', ...at, text: 'Hello.', logprobs: [] },
    { type: 'response.content_part.done', ...at, part: { ...part, text: 'Hello.' } },
    { type: 'response.output_item.done', output_index: 0, item: outputMessage('Hello.') },
    { type: 'response.completed', response: response() },
  ].map((event, index) => ({ ...event, sequence_number: index }));
}

export function embeddings() {
  return {
    object: 'list',
    data: [{ object: 'embedding', index: 0, embedding: [0.6, 0.8] }],
    model: 'text-embedding-3-small',
    usage: { prompt_tokens: 1, total_tokens: 1 },
  };
}

export function modelList() {
  return { object: 'list', data: [{ id: 'gpt-4o-mini', object: 'model', created: 1_767_225_600, owned_by: 'openai' }] };
}

export function file() {
  return {
    id: 'file-1',
    object: 'file',
    bytes: 5,
    created_at: 1_767_225_600,
    filename: 'a.txt',
    purpose: 'assistants',
    status: 'processed',
  };
}

export function vectorStore() {
  return {
    id: 'vs_1',
    object: 'vector_store',
    created_at: 1_767_225_600,
    name: 'handbook',
    usage_bytes: 0,
    file_counts: { in_progress: 0, completed: 0, failed: 0, cancelled: 0, total: 0 },
    status: 'completed',
    last_active_at: 1_767_225_600,
    metadata: {},
  };
}

export function searchPage() {
  return {
    object: 'vector_store.search_results.page',
    search_query: ['notice period'],
    data: [{ file_id: 'file-1', filename: 'a.txt', score: 0.5, attributes: {}, content: [{ type: 'text', text: 'Thirty days.' }] }],
    has_more: false,
    next_page: null,
  };
}

export function errorBody() {
  return { error: { message: 'No such file.', type: 'invalid_request_error', param: null, code: 'resource_not_found' } };
}
