/** A JSON object that has no member twice, at any depth: parsers disagree about which of the two counts (RFC 8259 section 4). */
export function parseUniqueJson(text: string): Readonly<Record<string, unknown>> | undefined {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) return undefined;
  return membersWritten(text) === membersKept(parsed) ? (parsed as Record<string, unknown>) : undefined;
}

/** Members of all objects in valid JSON text: outside strings, every one has its colon. */
function membersWritten(text: string): number {
  let members = 0;
  let inString = false;
  for (let index = 0; index < text.length; index++) {
    const character = text[index];
    if (inString) {
      if (character === '\\') index++;
      else if (character === '"') inString = false;
    } else if (character === '"') inString = true;
    else if (character === ':') members++;
  }
  return members;
}

/** With a list of its own instead of recursion: 8 KB of text hold 8,000 nested arrays. */
function membersKept(root: object): number {
  let members = 0;
  const pending: object[] = [root];
  for (let value = pending.pop(); value !== undefined; value = pending.pop()) {
    const children: readonly unknown[] = Object.values(value);
    if (!Array.isArray(value)) members += children.length;
    for (const child of children) {
      if (typeof child === 'object' && child !== null) pending.push(child);
    }
  }
  return members;
}
