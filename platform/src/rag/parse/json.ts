import { BulkheadError } from '../../errors/bulkhead-error.ts';
import { cleanText } from './clean-text.ts';
import { documentLimits, type TextBlock } from './document.ts';

/** One block for each top-level entry, `path.to.key: value` per line. `.jsonl` has one document a line. */
export function parseJson(text: string, isLines: boolean): TextBlock[] {
  const source = cleanText(text);
  const documents = isLines ? source.split('\n').filter((line) => line.trim() !== '') : [source];
  const blocks: TextBlock[] = [];
  for (const document of documents) {
    for (const entry of entriesOf(parseValue(document))) {
      const lines: string[] = [];
      describe(entry.value, entry.path, lines);
      if (lines.length > 0) blocks.push({ text: lines.join('\n') });
    }
  }
  return blocks;
}

function parseValue(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new BulkheadError('parse_failed', 'the file is not valid JSON', { cause: error });
  }
}

interface Entry {
  readonly path: string;
  readonly value: unknown;
}

function entriesOf(value: unknown): readonly Entry[] {
  if (Array.isArray(value)) return value.map((item) => ({ path: '', value: item }));
  if (typeof value !== 'object' || value === null) return [{ path: '', value }];
  return Object.entries(value).map(([path, item]) => ({ path, value: item }));
}

/** Depth first with its own stack: the nesting of the input never becomes the nesting of our calls. */
function describe(root: unknown, rootPath: string, lines: string[]): void {
  const pending: { readonly path: string; readonly value: unknown; readonly depth: number }[] = [{ path: rootPath, value: root, depth: 1 }];
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    const { path, value, depth } = next;
    if (typeof value !== 'object' || value === null) {
      lines.push(path === '' ? String(value) : `${path}: ${String(value)}`);
      continue;
    }
    if (depth >= documentLimits.jsonDepthMax) {
      throw new BulkheadError('document_limit', `JSON may nest at most ${documentLimits.jsonDepthMax} deep`);
    }
    const children = Object.entries(value).map(([key, item]) => ({
      path: path === '' ? key : `${path}.${key}`,
      value: item,
      depth: depth + 1,
    }));
    for (const child of children.toReversed()) pending.push(child);
  }
}
