/**
 * Byte-pair tokens of text, in the o200k vocabulary (GPT-4o and later); for other vendors' models the count is an estimate.
 * Text is always text: `<|endoftext|>` in a document is encoded as the characters it consists of, never as a control token.
 *
 * Two things of the library are not used, because they outlive a call and callers belong to different tenants: its merge cache
 * (100,000 fragments of everybody's text, and a timing oracle for them) and its decoder (one shared instance that keeps the bytes
 * of a character cut in half and prepends them to the next caller's text).
 */
import { createRequire } from 'node:module';
import { assert } from './assert.ts';

/** Tokens of `text`; 0 for the empty string. Blocks: 200 KB of English 4 ms, of the worst text found 144 ms. */
export function countTokens(text: string): number {
  const { tokenizer } = vocabulary();
  let count = 0;
  for (const segment of boundedSegments(text)) count += tokenizer.countTokens(segment, textOnly);
  return count;
}

/** Token ids in order; their bytes joined are the bytes of `text` (a lone surrogate becomes U+FFFD). */
export function encodeTokens(text: string): number[] {
  const { tokenizer } = vocabulary();
  const tokens: number[] = [];
  for (const segment of boundedSegments(text)) for (const token of tokenizer.encode(segment, textOnly)) tokens.push(token);
  return tokens;
}

/** The text of these tokens. A slice of a text's tokens may begin or end inside a character: such bytes become U+FFFD. */
export function decodeTokens(tokens: readonly number[]): string {
  const { ranks } = vocabulary();
  const parts = tokens.map((token) => {
    const bytes = ranks[token];
    assert(bytes !== undefined, 'a token id is outside the vocabulary');
    return typeof bytes === 'string' ? Buffer.from(bytes, 'utf8') : Uint8Array.from(bytes);
  });
  return Buffer.concat(parts).toString('utf8');
}

/** Loads the vocabulary now (140 to 180 ms, 40 MB) instead of at the first count. For after the start, never during it. */
export function loadVocabulary(): void {
  vocabulary();
}

/** Words in lower case that are one token behind a space, with their token ids: the lower, the more frequent in what the vocabulary was made from. */
export function* vocabularyWords(): Generator<readonly [word: string, rank: number]> {
  for (const [rank, bytes] of vocabulary().ranks.entries()) {
    if (typeof bytes === 'string' && /^ [\p{Ll}\p{Lo}\p{M}]+$/u.test(bytes)) yield [bytes.slice(1), rank];
  }
}

interface Vocabulary {
  readonly tokenizer: typeof import('gpt-tokenizer/encoding/o200k_base');
  readonly ranks: readonly (string | readonly number[])[];
  readonly pieces: RegExp;
}

let loaded: Vocabulary | undefined;

function vocabulary(): Vocabulary {
  if (loaded) return loaded;
  const require = createRequire(import.meta.url);
  const tokenizer: Vocabulary['tokenizer'] = require('gpt-tokenizer/encoding/o200k_base');
  tokenizer.setMergeCacheSize(0);
  loaded = {
    tokenizer,
    ranks: require('gpt-tokenizer/bpeRanks/o200k_base').default,
    pieces: require('gpt-tokenizer/encodingParams/constants').O200K_TOKEN_SPLIT_REGEX,
  };
  return loaded;
}

const textOnly = { disallowedSpecial: new Set<string>() };

/**
 * Merging one piece (a word, a run of punctuation or of spaces) costs the square of its length, so 60 KB of Chinese without a break
 * took 1.3 s. Longer pieces are cut: 200 KB took at most 144 ms at 128, 162 ms at 256. A cut adds at most a token or two and only
 * inside such a piece; every other text gets exactly the tokens of the reference encoder.
 */
const pieceCharactersMax = 128;

function boundedSegments(text: string): readonly string[] {
  return mayHoldLongPiece(text) ? cutLongPieces(text) : [text];
}

/** A piece never reaches across a space that a Latin letter follows, so most text is cleared without running the pattern over it. */
function mayHoldLongPiece(text: string): boolean {
  let pieceStart = 0;
  for (let index = 0; index < text.length; index++) {
    if (text.charCodeAt(index) === 0x20 && isLatinLetter(text.charCodeAt(index + 1))) pieceStart = index;
    if (index - pieceStart >= pieceCharactersMax) return true;
  }
  return false;
}

function isLatinLetter(code: number): boolean {
  const lowerCase = code | 0x20;
  return lowerCase >= 0x61 && lowerCase <= 0x7a;
}

function cutLongPieces(text: string): string[] {
  const segments: string[] = [];
  let segmentStart = 0;
  for (const match of text.matchAll(vocabulary().pieces)) {
    const [piece] = match;
    if (piece.length <= pieceCharactersMax) continue;
    if (match.index > segmentStart) segments.push(text.slice(segmentStart, match.index));
    pushCut(segments, piece);
    segmentStart = match.index + piece.length;
  }
  if (segmentStart < text.length) segments.push(text.slice(segmentStart));
  return segments;
}

function pushCut(segments: string[], piece: string): void {
  let start = 0;
  while (start < piece.length) {
    let end = Math.min(start + pieceCharactersMax, piece.length);
    if (end < piece.length && isHighSurrogate(piece.charCodeAt(end - 1))) end--;
    segments.push(piece.slice(start, end));
    start = end;
  }
}

function isHighSurrogate(code: number): boolean {
  return code >= 0xd800 && code <= 0xdbff;
}
