/**
 * `POST /v1/responses`: body -> ResponseRequest. Unlike chat completions this route is served by us, not passed on, so a field we do
 * not know is refused by name instead of being dropped.
 */
import { z } from 'zod';
import { BulkheadError } from '../../errors/bulkhead-error.ts';
import { parseAttributeFilter } from '../../rag/filter.ts';
import type { FileSearchTool, JsonRecord, ResponseRequest } from '../../request-path/responses/request.ts';
import { metadataSchema } from './chat-request.ts';
import { checkJsonSchema } from './json-schema-safety.ts';

const itemsMax = 10_000;
const optionalNullable = <T extends z.ZodType>(type: T) => z.union([type, z.null()]).optional();

const part = z.looseObject({ type: z.string() });
const itemContent = z.union([z.string(), z.array(part).min(1)]);

const messageItem = z.looseObject({
  type: z.literal('message').optional(),
  role: z.enum(['user', 'assistant', 'system', 'developer']),
  content: itemContent,
});
const functionCallItem = z.looseObject({
  type: z.literal('function_call'),
  call_id: z.string().min(1).max(256),
  name: z.string().min(1).max(128),
  arguments: z.string(),
});
const functionOutputItem = z.looseObject({
  type: z.literal('function_call_output'),
  call_id: z.string().min(1).max(256),
  output: itemContent,
});
const traceItem = z.looseObject({ type: z.enum(['file_search_call', 'reasoning']) });
const item = z.union([functionCallItem, functionOutputItem, traceItem, messageItem]);

const functionTool = z.looseObject({
  type: z.literal('function'),
  name: z.string().regex(/^[a-zA-Z0-9_-]{1,64}$/, 'must be 1 to 64 letters, digits, _ or -'),
  parameters: optionalNullable(z.record(z.string(), z.unknown())),
  strict: optionalNullable(z.boolean()),
  description: optionalNullable(z.string().max(10_000)),
});
/** Only their proportion counts. */
const armWeight = z.number().min(0).max(1_000);
const fileSearchTool = z.strictObject({
  type: z.literal('file_search'),
  vector_store_ids: z.array(z.string().min(1).max(128)).min(1).max(16),
  max_num_results: z.number().int().min(1).max(50).optional(),
  ranking_options: z
    .strictObject({
      ranker: z.enum(['auto', 'default-2024-11-15']).optional(),
      score_threshold: z.number().min(0).max(1).optional(),
      hybrid_search: z
        .strictObject({ embedding_weight: armWeight, text_weight: armWeight })
        .refine(({ embedding_weight, text_weight }) => embedding_weight + text_weight > 0, 'at least one of the weights must be above 0')
        .nullish(),
    })
    .nullish(),
  filters: z.unknown().optional(),
});

const bodySchema = z.strictObject({
  model: z.string().min(1).max(256),
  input: z.union([z.string(), z.array(item).max(itemsMax)]).optional(),
  instructions: optionalNullable(z.string()),
  previous_response_id: optionalNullable(z.string().min(1).max(128)),
  store: optionalNullable(z.boolean()),
  stream: optionalNullable(z.boolean()),
  stream_options: optionalNullable(z.looseObject({})),
  tools: z
    .array(z.looseObject({ type: z.string() }))
    .max(128)
    .optional(),
  tool_choice: z.union([z.enum(['auto', 'none', 'required']), z.looseObject({ type: z.string() })]).optional(),
  parallel_tool_calls: optionalNullable(z.boolean()),
  max_tool_calls: optionalNullable(z.number().int().min(1)),
  max_output_tokens: optionalNullable(z.number().int().min(1).max(10_000_000)),
  temperature: optionalNullable(z.number().min(0).max(2)),
  top_p: optionalNullable(z.number().min(0).max(1)),
  top_logprobs: optionalNullable(z.number().int().min(0).max(20)),
  text: z.looseObject({ format: z.looseObject({ type: z.enum(['text', 'json_object', 'json_schema']) }).optional() }).optional(),
  reasoning: optionalNullable(z.looseObject({})),
  truncation: optionalNullable(z.enum(['auto', 'disabled'])),
  include: optionalNullable(z.array(z.string().max(128)).max(16)),
  metadata: optionalNullable(metadataSchema),
  service_tier: optionalNullable(z.string().max(32)),
  user: optionalNullable(z.string().max(512)),
  safety_identifier: optionalNullable(z.string().max(512)),
  prompt_cache_key: optionalNullable(z.string().max(512)),
  background: optionalNullable(z.literal(false)),
});

export const responsesBodySchema = bodySchema;

/** Turns the validated body into what the request path works with. Throws `invalid_value`, `unsupported_parameter`, `invalid_filter`. */
export function responseRequestOf(body: z.output<typeof bodySchema>): ResponseRequest {
  const tools = (body.tools ?? []).map((tool, index) => checkTool(tool, `tools.${index}`));
  checkTextFormat(body.text);
  if (body.input === undefined && body.previous_response_id === undefined) {
    throw new BulkheadError('missing_required_parameter', 'input is required', { param: 'input' });
  }
  return {
    model: body.model,
    input: itemsOf(body.input ?? []),
    instructions: body.instructions ?? null,
    previousResponseId: body.previous_response_id ?? null,
    store: body.store ?? true,
    stream: body.stream ?? false,
    tools,
    toolChoice: body.tool_choice ?? 'auto',
    fileSearch: fileSearchOf(tools, body.tool_choice),
    parallelToolCalls: body.parallel_tool_calls ?? true,
    maxOutputTokens: body.max_output_tokens ?? null,
    temperature: body.temperature ?? null,
    topP: body.top_p ?? null,
    topLogprobs: body.top_logprobs ?? null,
    text: { ...body.text, format: body.text?.format ?? { type: 'text' } },
    reasoning: body.reasoning ?? null,
    truncation: body.truncation ?? 'disabled',
    serviceTier: body.service_tier ?? null,
    metadata: body.metadata ?? {},
    include: body.include ?? [],
    safetyIdentifier: body.safety_identifier ?? null,
    promptCacheKey: body.prompt_cache_key ?? null,
    user: body.user ?? null,
  };
}

function itemsOf(input: string | readonly JsonRecord[]): readonly JsonRecord[] {
  if (typeof input !== 'string') return input;
  return [{ type: 'message', role: 'user', content: [{ type: 'input_text', text: input }] }];
}

function checkTool(tool: JsonRecord, param: string): JsonRecord {
  const schema = tool['type'] === 'function' ? functionTool : tool['type'] === 'file_search' ? fileSearchTool : undefined;
  if (schema === undefined) {
    throw new BulkheadError('unsupported_parameter', 'supported tools are function and file_search', { param: `${param}.type` });
  }
  const parsed = schema.safeParse(tool);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw new BulkheadError('invalid_value', issue?.message ?? 'is not a valid tool', { param: [param, ...(issue?.path ?? [])].join('.') });
  }
  if (tool['type'] === 'function' && tool['parameters']) checkJsonSchema(tool['parameters'], `${param}.parameters`);
  return tool['type'] === 'function' ? { parameters: null, strict: null, ...tool } : tool;
}

function checkTextFormat(text: JsonRecord | undefined): void {
  const format = text?.['format'] as JsonRecord | undefined;
  if (format?.['type'] !== 'json_schema') return;
  if (typeof format['name'] !== 'string' || typeof format['schema'] !== 'object') {
    throw new BulkheadError('missing_required_parameter', 'a json_schema format needs name and schema', { param: 'text.format' });
  }
  checkJsonSchema(format['schema'], 'text.format.schema');
}

function weightsOf(
  asked: { readonly embedding_weight: number; readonly text_weight: number } | null | undefined,
): FileSearchTool['weights'] {
  return asked ? { dense: asked.embedding_weight, lexical: asked.text_weight } : undefined;
}

function fileSearchOf(tools: readonly JsonRecord[], toolChoice: unknown): FileSearchTool | undefined {
  const index = tools.findIndex((tool) => tool['type'] === 'file_search');
  if (index < 0 || toolChoice === 'none') return undefined;
  const tool = tools[index] as z.output<typeof fileSearchTool>;
  return {
    vectorStoreIds: tool.vector_store_ids,
    maxNumResults: tool.max_num_results ?? 20,
    scoreThreshold: tool.ranking_options?.score_threshold ?? 0,
    weights: weightsOf(tool.ranking_options?.hybrid_search),
    filter: tool.filters === undefined || tool.filters === null ? undefined : parseAttributeFilter(tool.filters, `tools.${index}.filters`),
  };
}
