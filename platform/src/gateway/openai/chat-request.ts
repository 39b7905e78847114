/**
 * What `POST /v1/chat/completions` refuses before anything is spent. Known fields are checked; unknown fields pass through
 * untouched, because new SDKs must work against an old gateway (api.md 1.2).
 */
import { z } from 'zod';
import { BulkheadError } from '../../errors/bulkhead-error.ts';
import { checkJsonSchema } from './json-schema-safety.ts';

const messagesMax = 10_000;
const toolsMax = 128;
const toolBytesMax = 262_144;

const role = z.enum(['developer', 'system', 'user', 'assistant', 'tool', 'function']);
const content = z.union([z.string(), z.array(z.looseObject({ type: z.string() })).min(1), z.null()]);

const toolCall = z.looseObject({ id: z.string().min(1).max(256), type: z.string() });

const message = z.looseObject({
  role,
  content: content.optional(),
  name: z.string().max(256).optional(),
  tool_call_id: z.string().min(1).max(256).optional(),
  tool_calls: z.array(toolCall).max(10_000).optional(),
});

const functionName = z.string().regex(/^[a-zA-Z0-9_-]{1,64}$/, 'must be 1 to 64 letters, digits, _ or -');

const tool = z.looseObject({
  type: z.string(),
  function: z.looseObject({ name: functionName, parameters: z.record(z.string(), z.unknown()).optional() }).optional(),
});

const tokenCount = z.number().int().min(1).max(10_000_000);
const optionalNullable = <T extends z.ZodType>(type: T) => z.union([type, z.null()]).optional();

export const metadataSchema = z
  .record(z.string().max(64), z.string().max(512))
  .refine((value) => Object.keys(value).length <= 16, 'takes at most 16 pairs');

export const chatRequestSchema = z.looseObject({
  model: z.string().min(1).max(256),
  messages: z.array(message).min(1).max(messagesMax),
  stream: optionalNullable(z.boolean()),
  stream_options: optionalNullable(z.looseObject({ include_usage: z.boolean().optional() })),
  n: optionalNullable(z.number().int().min(1).max(128)),
  max_tokens: optionalNullable(tokenCount),
  max_completion_tokens: optionalNullable(tokenCount),
  temperature: optionalNullable(z.number().min(0).max(2)),
  top_p: optionalNullable(z.number().min(0).max(1)),
  presence_penalty: optionalNullable(z.number().min(-2).max(2)),
  frequency_penalty: optionalNullable(z.number().min(-2).max(2)),
  logprobs: optionalNullable(z.boolean()),
  top_logprobs: optionalNullable(z.number().int().min(0).max(20)),
  seed: optionalNullable(z.number().int()),
  stop: optionalNullable(z.union([z.string().min(1), z.array(z.string().min(1)).max(4)])),
  logit_bias: optionalNullable(z.record(z.string().regex(/^\d{1,7}$/, 'must be a token id'), z.number().min(-100).max(100))),
  user: optionalNullable(z.string().max(512)),
  safety_identifier: optionalNullable(z.string().max(512)),
  metadata: optionalNullable(metadataSchema),
  tools: optionalNullable(z.array(tool).max(toolsMax)),
  parallel_tool_calls: optionalNullable(z.boolean()),
  response_format: optionalNullable(z.looseObject({ type: z.enum(['text', 'json_object', 'json_schema']) })),
});

export type ChatRequest = z.output<typeof chatRequestSchema>;

/** The rules that span fields. Throws `invalid_value` with the parameter at fault. */
export function checkChatRequest(request: ChatRequest): void {
  checkToolMessages(request.messages);
  for (const [index, entry] of (request.tools ?? []).entries()) checkTool(entry, `tools.${index}`);
  const schema = (request.response_format as { json_schema?: { schema?: unknown } } | null | undefined)?.json_schema?.schema;
  if (schema !== undefined) checkJsonSchema(schema, 'response_format.json_schema.schema');
}

function checkToolMessages(messages: ChatRequest['messages']): void {
  let answered = new Set<string>();
  messages.forEach((entry, index) => {
    if (entry.role !== 'tool') {
      answered = new Set();
      return;
    }
    const param = `messages.${index}.tool_call_id`;
    if (entry.tool_call_id === undefined) {
      throw new BulkheadError('missing_required_parameter', 'a tool message needs the tool_call_id it answers', { param });
    }
    if (answered.has(entry.tool_call_id)) {
      throw new BulkheadError('invalid_value', 'two tool messages answer the same tool_call_id', { param });
    }
    answered.add(entry.tool_call_id);
  });
}

function checkTool(entry: z.output<typeof tool>, param: string): void {
  const parameters = entry.function?.parameters;
  if (parameters === undefined) return;
  const bytes = JSON.stringify(parameters).length;
  if (bytes > toolBytesMax) {
    throw new BulkheadError('invalid_value', `a tool's parameters may have ${toolBytesMax} characters; these have ${bytes}`, { param });
  }
  checkJsonSchema(parameters, `${param}.function.parameters`);
}
