/** `tools`, `tool_choice` and `response_format` of a chat completion, for adapters that translate them. */
import { isObject, type JsonObject } from './json-object.ts';
import { invalid, unsupported } from './request-refusals.ts';

export interface FunctionTool {
  readonly name: string;
  readonly description: string | undefined;
  /** Always of the type `object`: a function without parameters has an empty one. */
  readonly parameters: JsonObject;
  readonly isStrict: boolean;
}

export type ToolChoice = { readonly type: 'auto' | 'none' | 'required' } | { readonly type: 'function'; readonly name: string };

export interface AskedTools {
  readonly functions: readonly FunctionTool[];
  /** Undefined: not said, or nothing to choose from. */
  readonly choice: ToolChoice | undefined;
}

export function toolsOf(body: JsonObject): AskedTools {
  const functions = Array.isArray(body['tools']) ? body['tools'].map(functionOf) : [];
  const choice = choiceOf(body['tool_choice']);
  if (functions.length > 0) return { functions, choice };
  if (choice?.type === 'required' || choice?.type === 'function') throw invalid('tool_choice', 'needs tools to choose from');
  return { functions, choice: undefined };
}

function functionOf(tool: unknown, index: number): FunctionTool {
  const definition = isObject(tool) && tool['type'] === 'function' ? tool['function'] : undefined;
  if (!isObject(definition)) throw unsupported(`tools.${index}.type`, 'tools that are not functions');
  const { name, description, parameters, strict } = definition;
  if (typeof name !== 'string') throw invalid(`tools.${index}.function.name`, 'must be a text');
  return {
    name,
    description: typeof description === 'string' && description !== '' ? description : undefined,
    parameters: { ...(isObject(parameters) ? parameters : { properties: {} }), type: 'object' },
    isStrict: strict === true,
  };
}

function choiceOf(choice: unknown): ToolChoice | undefined {
  if (choice === undefined || choice === null) return undefined;
  if (choice === 'auto' || choice === 'none' || choice === 'required') return { type: choice };
  const named = isObject(choice) && choice['type'] === 'function' ? choice['function'] : undefined;
  if (isObject(named) && typeof named['name'] === 'string') return { type: 'function', name: named['name'] };
  throw unsupported('tool_choice', 'this value of tool_choice');
}

export interface AskedFormat {
  readonly type: 'text' | 'json_object' | 'json_schema';
  /** With `json_schema`. */
  readonly schema?: JsonObject;
  readonly name?: string;
  readonly description?: string;
}

export function formatOf(format: unknown): AskedFormat {
  if (!isObject(format) || format['type'] === 'text') return { type: 'text' };
  if (format['type'] === 'json_object') return { type: 'json_object' };
  if (format['type'] !== 'json_schema') throw unsupported('response_format.type', 'this type of response_format');
  const { json_schema: named } = format;
  const { schema, name, description } = isObject(named) ? named : {};
  if (!isObject(schema)) throw invalid('response_format.json_schema.schema', 'must be a JSON schema');
  return {
    type: 'json_schema',
    schema,
    ...(typeof name === 'string' && { name }),
    ...(typeof description === 'string' && { description }),
  };
}
