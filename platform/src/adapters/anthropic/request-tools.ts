import { isObject, type JsonObject } from '../../upstream/json-object.ts';
import { invalid, unsupported } from './unsupported.ts';

/** `tools`, `tool_choice` and `parallel_tool_calls` of a chat completion as the Messages API has them. */
export function toolsOf(body: JsonObject): JsonObject {
  const tools = Array.isArray(body['tools']) ? body['tools'].map(toolOf) : [];
  const choice = choiceOf(body['tool_choice']);
  if (tools.length === 0) {
    if (choice?.['type'] === 'any' || choice?.['type'] === 'tool') throw invalid('tool_choice', 'needs tools to choose from');
    return {};
  }
  return { tools, ...choiceWith(choice, body['parallel_tool_calls'] === false) };
}

function choiceWith(choice: JsonObject | undefined, isSingle: boolean): JsonObject {
  if (choice?.['type'] === 'none') return { tool_choice: choice };
  if (isSingle) return { tool_choice: { ...(choice ?? { type: 'auto' }), disable_parallel_tool_use: true } };
  return choice === undefined ? {} : { tool_choice: choice };
}

function toolOf(tool: unknown, index: number): JsonObject {
  const definition = isObject(tool) && tool['type'] === 'function' ? tool['function'] : undefined;
  if (!isObject(definition)) throw unsupported(`tools.${index}.type`, 'tools that are not functions');
  const { name, description, parameters, strict } = definition;
  if (typeof name !== 'string') throw invalid(`tools.${index}.function.name`, 'must be a text');
  return {
    name,
    ...(typeof description === 'string' && description !== '' && { description }),
    // The API takes objects only; a function without parameters has none in OpenAI's dialect.
    input_schema: { ...(isObject(parameters) ? parameters : { properties: {} }), type: 'object' },
    ...(strict === true && { strict }),
  };
}

function choiceOf(choice: unknown): JsonObject | undefined {
  if (choice === undefined || choice === null) return undefined;
  if (choice === 'auto' || choice === 'none') return { type: choice };
  if (choice === 'required') return { type: 'any' };
  const named = isObject(choice) && choice['type'] === 'function' ? choice['function'] : undefined;
  if (isObject(named) && typeof named['name'] === 'string') return { type: 'tool', name: named['name'] };
  throw unsupported('tool_choice', 'this value of tool_choice');
}
