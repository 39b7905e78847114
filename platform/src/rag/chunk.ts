/**
 * Third step of ingestion: text blocks -> chunks. Every chunk is a slice of the document's text, so nothing is lost and nothing
 * invented; a slice never starts or ends inside a code point. The same document and strategy always give the same chunks.
 */
import { countTokens } from '../primitives/count-tokens.ts';
import type { ChunkingStrategy } from '../tenancy/capabilities.ts';
import type { TextBlock } from './parse/document.ts';

export interface TextChunk {
  readonly text: string;
  /** Tokens of `text`, 1 to `maxChunkTokens`. */
  readonly tokens: number;
  /** Where it stands in `textOf(blocks)`, in UTF-16 units. */
  readonly start: number;
  readonly end: number;
}

/** The whole text of a document, blocks parted by an empty line, headings marked as in Markdown. */
export function textOf(blocks: readonly TextBlock[]): string {
  return blocks.map(writtenBlock).join(blockSeparator);
}

/**
 * Packs whole paragraphs while they fit, repeating at most `overlapTokens` of the end of one chunk at the start of the next. A heading
 * starts a new chunk once the current one is half full. A long paragraph is cut at a line end, else a sentence, else a blank.
 */
export function chunkBlocks(blocks: readonly TextBlock[], strategy: ChunkingStrategy): TextChunk[] {
  const text = textOf(blocks);
  const units = unitsOf(blocks, text, unitTokensMax(strategy));
  const chunks: TextChunk[] = [];
  let first = 0;
  for (let fresh = 0; fresh < units.length; ) {
    const packed = pack(text, units, { first, fresh, strategy });
    chunks.push(packed.chunk);
    fresh = packed.last + 1;
    first = overlapStart(text, units, { fresh, tokensMax: strategy.overlapTokens });
  }
  return chunks;
}

const blockSeparator = '\n\n';

/** A piece of text that is not cut further, white space after it included. Units follow one another without a gap. */
interface Unit {
  readonly start: number;
  readonly end: number;
  readonly tokens: number;
  readonly isHeading: boolean;
}

/** Small enough that an overlap and one more unit always fit, and that an overlap is not empty for want of a small unit. */
function unitTokensMax({ maxChunkTokens, overlapTokens }: ChunkingStrategy): number {
  const quarter = Math.floor(maxChunkTokens / 4);
  return overlapTokens === 0 ? quarter : Math.min(quarter, Math.max(16, Math.floor(overlapTokens / 2)));
}

interface Packing {
  readonly first: number;
  /** The first unit that no chunk holds yet. */
  readonly fresh: number;
  readonly strategy: ChunkingStrategy;
}

function pack(text: string, units: readonly Unit[], { first, fresh, strategy }: Packing): { chunk: TextChunk; last: number } {
  const { maxChunkTokens } = strategy;
  let last = fresh;
  let tokens = sumTokens(units, first, fresh);
  for (let next = units[last + 1]; next && tokens + next.tokens <= maxChunkTokens; next = units[last + 1]) {
    if (next.isHeading && tokens >= maxChunkTokens / 2) break;
    tokens += next.tokens;
    last++;
  }
  // Tokens of joined units are almost always at most their sum; where they are not, units are given back until the count is true.
  let start = first;
  for (;;) {
    const chunk = slice(text, units, start, last);
    if (chunk.tokens <= maxChunkTokens) return { chunk, last };
    if (last > fresh) last--;
    else start++;
  }
}

function overlapStart(text: string, units: readonly Unit[], { fresh, tokensMax }: { fresh: number; tokensMax: number }): number {
  let first = fresh;
  let tokens = 0;
  for (let previous = units[first - 1]; previous && tokens + previous.tokens <= tokensMax; previous = units[first - 1]) {
    tokens += previous.tokens;
    first--;
  }
  while (first < fresh && slice(text, units, first, fresh - 1).tokens > tokensMax) first++;
  return first;
}

function slice(text: string, units: readonly Unit[], first: number, last: number): TextChunk {
  const from = units[first]?.start ?? 0;
  const until = units[last]?.end ?? from;
  const padded = text.slice(from, until);
  const chunk = padded.trim();
  const start = from + (padded.length - padded.trimStart().length);
  return { text: chunk, tokens: countTokens(chunk), start, end: start + chunk.length };
}

function sumTokens(units: readonly Unit[], first: number, last: number): number {
  let sum = 0;
  for (let index = first; index <= last; index++) sum += units[index]?.tokens ?? 0;
  return sum;
}

function unitsOf(blocks: readonly TextBlock[], text: string, tokensMax: number): Unit[] {
  const units: Unit[] = [];
  let start = 0;
  for (const block of blocks) {
    const end = Math.min(text.length, start + writtenBlock(block).length + blockSeparator.length);
    const isHeading = block.headingLevel !== undefined;
    for (const piece of piecesOf(text, { start, end }, tokensMax)) {
      units.push({ ...piece, isHeading: isHeading && piece.start === start });
    }
    start = end;
  }
  return units;
}

function writtenBlock(block: TextBlock): string {
  return block.headingLevel === undefined ? block.text : `${'#'.repeat(block.headingLevel)} ${block.text}`;
}

interface Range {
  readonly start: number;
  readonly end: number;
}

/** No text has fewer tokens than a sixteenth of its UTF-16 length, except runs of one character; those are cut smaller than needed. */
const charactersPerTokenMax = 16;

function piecesOf(text: string, range: Range, tokensMax: number): (Range & { tokens: number })[] {
  const pieces: (Range & { tokens: number })[] = [];
  const pending: Range[] = [range];
  for (let next = pending.pop(); next; next = pending.pop()) {
    const { start, end } = next;
    const isCountable = end - start <= tokensMax * charactersPerTokenMax;
    const content = isCountable ? text.slice(start, end) : '';
    const tokens = isCountable ? countTokens(content) : Number.POSITIVE_INFINITY;
    if (tokens <= tokensMax || end - start <= 2) {
      if (content.trim() !== '') pieces.push({ start, end, tokens });
      continue;
    }
    const middle = cutNearMiddle(text, next);
    pending.push({ start: middle, end }, { start, end: middle });
  }
  return pieces;
}

/** How far from the middle a better place to cut is looked for, in UTF-16 units. */
const cutSearchMax = 2_000;

/** Where to part a range: nearest the middle after a line end, else a sentence, else a blank, else anywhere between code points. */
function cutNearMiddle(text: string, { start, end }: Range): number {
  const middle = start + Math.floor((end - start) / 2);
  const reach = Math.min(cutSearchMax, Math.floor((end - start) / 4));
  for (const isBoundary of [endsLine, endsSentence, endsWord]) {
    for (let distance = 0; distance < reach; distance++) {
      if (isBoundary(text, middle + distance)) return middle + distance;
      if (isBoundary(text, middle - distance)) return middle - distance;
    }
  }
  return startsInsideCodePoint(text, middle) ? middle + 1 : middle;
}

function endsLine(text: string, index: number): boolean {
  return text[index - 1] === '\n';
}

function endsSentence(text: string, index: number): boolean {
  const last = text[index - 1] ?? '';
  if ('。！？'.includes(last)) return last !== '';
  return isBlank(last) && '.!?'.includes(text[index - 2] ?? ' ');
}

function endsWord(text: string, index: number): boolean {
  return isBlank(text[index - 1] ?? '');
}

function isBlank(character: string): boolean {
  return character === ' ' || character === '\n' || character === '\t';
}

function startsInsideCodePoint(text: string, index: number): boolean {
  const code = text.charCodeAt(index);
  return code >= 0xdc00 && code <= 0xdfff;
}
