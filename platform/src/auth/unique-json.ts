/** A flat reading of a JSON object that refuses duplicate members at its top level, which parsers disagree about (RFC 8259 section 4). */
export function parseUniqueJson(text: string): Readonly<Record<string, unknown>> | undefined {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) return undefined;
  return countMembers(text) === Object.keys(parsed).length ? (parsed as Record<string, unknown>) : undefined;
}

/** Members of the outermost object in valid JSON text. */
function countMembers(text: string): number {
  let depth = 0;
  let members = 0;
  let inString = false;
  for (let index = 0; index < text.length; index++) {
    const character = text[index];
    if (inString) {
      if (character === '\\') index++;
      else if (character === '"') inString = false;
      continue;
    }
    if (character === '"') inString = true;
    else if (character === '{' || character === '[') depth++;
    else if (character === '}' || character === ']') depth--;
    else if (character === ':' && depth === 1) members++;
  }
  return members;
}
