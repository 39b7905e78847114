/**
 * The worst model there can be, for isolation tests: it repeats everything it was given and calls every tool with every identifier
 * it saw, as a model does that follows an instruction injected into a document. What must not leak must not have been in its input.
 */
import type { Random } from '../../primitives/random.ts';
import type { Prompt } from './prompt.ts';
import { callOf, type DraftedCall, type OfferedTool } from './tool-calls.ts';

const charactersMax = 65_536;
const idsMax = 32;
const callsMax = 128;

/** Everything in the prompt, in order, with its roles. */
export function repeatPrompt(prompt: Prompt): string {
  const all = prompt.messages.map(({ role, text }) => `${role}: ${text}`).join('\n');
  return `Simulated and obedient. ${all}`.slice(0, charactersMax).toWellFormed();
}

export function callEverything(tools: readonly OfferedTool[], prompt: Prompt, random: Random): readonly DraftedCall[] {
  const ids = idsIn(prompt);
  const subjects = ids.length === 0 ? ['simulated'] : ids;
  return tools.flatMap((tool) => subjects.map((subject) => callOf(tool, random, () => subject))).slice(0, callsMax);
}

/** Prefixed identifiers (`file-abc123`, `vs_9f`), UUIDs and e-mail addresses. */
function idsIn(prompt: Prompt): readonly string[] {
  const text = prompt.messages
    .map((message) => message.text)
    .join('\n')
    .slice(0, charactersMax);
  const pattern =
    /\b(?:[a-z]{2,12}[-_][A-Za-z0-9][A-Za-z0-9_-]{3,80}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[\w.+-]{1,64}@[\w-]{1,64}(?:\.[\w-]{1,64}){1,4})/g;
  return [...new Set(text.match(pattern))].slice(0, idsMax);
}
