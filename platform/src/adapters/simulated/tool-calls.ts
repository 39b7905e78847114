import type { Random } from '../../primitives/random.ts';
import type { Prompt } from './prompt.ts';
import { valueForSchema } from './schema-value.ts';

export interface DraftedCall {
  readonly name: string;
  /** JSON text. */
  readonly arguments: string;
}

export interface OfferedTool {
  readonly name: string;
  readonly description: string;
  readonly parameters: unknown;
}

type JsonObject = Readonly<Record<string, unknown>>;

/** As much of a question or a description as is read. */
const charactersMax = 4_000;

/** Function tools of the request that `tool_choice` allows; none when it forbids them. Tools of other types are not simulated. */
export function offeredTools(body: JsonObject): readonly OfferedTool[] {
  const choice = body['tool_choice'];
  if (choice === 'none' || !Array.isArray(body['tools'])) return [];
  const tools = body['tools'].flatMap(readTool);
  const allowed = namesIn(choice);
  return allowed === undefined ? tools : tools.filter((tool) => allowed.includes(tool.name));
}

/** One call of the tool that shares most words with the question, the first among equals; its arguments satisfy the tool's schema. */
export function draftCall(tools: readonly OfferedTool[], prompt: Prompt, random: Random): DraftedCall | undefined {
  const asked = wordsOf(prompt.question);
  let best: { readonly tool: OfferedTool; readonly shared: number } | undefined;
  for (const tool of tools) {
    const shared = [...wordsOf(`${tool.name} ${tool.description}`)].filter((word) => asked.has(word)).length;
    if (best === undefined || shared > best.shared) best = { tool, shared };
  }
  return best && callOf(best.tool, random, () => subjectOf(prompt.question));
}

export function callOf(tool: OfferedTool, random: Random, text: () => string): DraftedCall {
  const schema = tool.parameters ?? { type: 'object' };
  return { name: tool.name, arguments: JSON.stringify(valueForSchema(schema, { random, text })) };
}

function readTool(tool: unknown): readonly OfferedTool[] {
  const described = isObject(tool) && tool['type'] === 'function' ? tool['function'] : undefined;
  if (!isObject(described) || typeof described['name'] !== 'string') return [];
  const { name, description, parameters } = described;
  return [{ name, description: typeof description === 'string' ? description : '', parameters }];
}

/** `{type: "function", function: {name}}` and `{type: "allowed_tools", allowed_tools: {mode, tools}}`; undefined when all are allowed. */
function namesIn(choice: unknown): readonly string[] | undefined {
  if (!isObject(choice)) return undefined;
  if (isObject(choice['function'])) return [String(choice['function']['name'])];
  const allowed = isObject(choice['allowed_tools']) ? choice['allowed_tools']['tools'] : undefined;
  return Array.isArray(allowed) ? allowed.flatMap((entry) => namesIn(entry) ?? []) : undefined;
}

function wordsOf(text: string): ReadonlySet<string> {
  return new Set(
    text
      .slice(0, charactersMax)
      .toLowerCase()
      .match(/[\p{L}\p{N}]{3,}/gu) ?? [],
  );
}

/** A name in the question, as in "weather in San Francisco?": capitalised words that do not begin it. */
function subjectOf(question: string): string {
  const name = /(?<=\p{L}[^.!?]{0,200}\s)\p{Lu}[\p{L}\p{N}-]{1,40}(?: \p{Lu}[\p{L}\p{N}-]{1,40}){0,3}/u.exec(question.slice(0, 1_000));
  return name?.[0] ?? 'simulated';
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null;
}
