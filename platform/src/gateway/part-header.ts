/** `Content-Disposition` of a form part, and the file name that may be kept of what it claims. */

export interface Disposition {
  readonly name: string;
  /** As the client sent it, decoded; never a path to use. */
  readonly filename: string | undefined;
}

/** Undefined when it is not `form-data` with a name, or a parameter is malformed or repeated. Linear in the header's length. */
export function dispositionOf(value: string): Disposition | undefined {
  const [type, ...rest] = splitParameters(value);
  if (type?.trim().toLowerCase() !== 'form-data') return undefined;
  const parameters = new Map<string, string>();
  for (const text of rest) {
    const equals = text.indexOf('=');
    if (equals === -1) return undefined;
    const key = text.slice(0, equals).trim().toLowerCase();
    if (parameters.has(key)) return undefined;
    const decoded = key.endsWith('*') ? extendedValue(text.slice(equals + 1).trim()) : unquote(text.slice(equals + 1).trim());
    if (decoded === undefined) return undefined;
    parameters.set(key, decoded);
  }
  const name = parameters.get('name');
  if (name === undefined || name === '') return undefined;
  return { name, filename: parameters.get('filename*') ?? parameters.get('filename') };
}

const filenameCharactersMax = 255;

/** Controls, line separators and the format characters that reorder text: `exe.txt` must not show as `txt.exe`. */
const invisible = /[\p{Cc}\p{Cf}\u2028\u2029]/gu;

/** The last segment of whatever path was claimed, without controls, at most 255 characters; `upload` when nothing is left. */
export function safeFilename(claimed: string): string {
  const base = claimed.toWellFormed().replace(invisible, '').split(/[/\\]/).at(-1)?.trim() ?? '';
  const isDots = /^\.*$/.test(base);
  return isDots ? 'upload' : cutKeepingExtension(base.normalize('NFC'));
}

function cutKeepingExtension(name: string): string {
  if (name.length <= filenameCharactersMax) return name;
  const extension = /\.[A-Za-z0-9]{1,16}$/.exec(name)?.[0] ?? '';
  return name.slice(0, filenameCharactersMax - extension.length).toWellFormed() + extension;
}

/** Splits at semicolons outside quotes. */
function splitParameters(value: string): string[] {
  const parts: string[] = [];
  let start = 0;
  let isQuoted = false;
  for (let index = 0; index < value.length; index++) {
    const character = value.charAt(index);
    if (character === '\\' && isQuoted) index++;
    else if (character === '"') isQuoted = !isQuoted;
    else if (character === ';' && !isQuoted) {
      parts.push(value.slice(start, index));
      start = index + 1;
    }
  }
  parts.push(value.slice(start));
  return parts;
}

/** Browsers write `%22` for a quote, curl a backslash before it; both are understood, other percent-signs are literal. */
function unquote(text: string): string | undefined {
  if (!text.startsWith('"')) return /^[^\s";]+$/.test(text) ? text : undefined;
  if (text.length < 2 || !text.endsWith('"')) return undefined;
  return text
    .slice(1, -1)
    .replace(/\\(["\\])/g, '$1')
    .replaceAll('%22', '"');
}

/** RFC 8187: `utf-8'en'percent-encoded`. RFC 7578 forbids it in forms; clients send it. */
function extendedValue(text: string): string | undefined {
  const match = /^utf-8'[A-Za-z0-9-]{0,16}'(.*)$/i.exec(text);
  if (match?.[1] === undefined) return undefined;
  try {
    return decodeURIComponent(match[1]);
  } catch {
    // Not UTF-8: the name is as good as none.
    return undefined;
  }
}
