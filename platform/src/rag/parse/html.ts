import { type Token, type TokenHandler, Tokenizer, TokenizerMode } from 'parse5';
import { cleanText, collapseBlanks } from './clean-text.ts';
import type { TextBlock } from './document.ts';

/**
 * The text of an HTML document. Only the tokenizer of parse5 runs, without a tree: tree construction walks the stack of open
 * elements, which is quadratic in nesting depth (a million nested `<div>` would take hours), and text needs no tree.
 * `<base>`, `<meta>`, links and scripts have no effect: nothing is followed or run.
 */
export function parseHtml(html: string): TextBlock[] {
  const reader = new TextReader();
  const tokenizer = new Tokenizer({}, reader);
  reader.onRawText = (mode) => {
    tokenizer.state = mode;
  };
  tokenizer.write(html, true);
  return reader.finish();
}

type TagToken = Token.TagToken;
type RawTextMode = (typeof TokenizerMode)['RCDATA' | 'RAWTEXT' | 'SCRIPT_DATA' | 'PLAINTEXT'];

/** Elements whose content is another language to the tokenizer; HTML standard, 13.2.6.4.4 and 13.2.6.4.7. */
const rawTextModes = new Map<string, RawTextMode>([
  ['script', TokenizerMode.SCRIPT_DATA],
  ['style', TokenizerMode.RAWTEXT],
  ['xmp', TokenizerMode.RAWTEXT],
  ['iframe', TokenizerMode.RAWTEXT],
  ['noembed', TokenizerMode.RAWTEXT],
  ['noframes', TokenizerMode.RAWTEXT],
  ['textarea', TokenizerMode.RCDATA],
  ['title', TokenizerMode.RCDATA],
]);
const droppedElements = new Set(['script', 'style', 'template', 'noscript', 'noframes', 'noembed', 'iframe', 'object', 'svg', 'math']);
const inlineElements = new Set(
  'a abbr acronym b bdi bdo big cite code data del dfn em font i img input ins kbd label mark meter nobr output progress q ruby rb rp rt s samp small span strike strong sub sup time tt u var wbr'.split(
    ' ',
  ),
);
const cellElements = new Set(['td', 'th']);

class TextReader implements TokenHandler {
  onRawText: (mode: RawTextMode) => void = () => {};
  readonly #blocks: TextBlock[] = [];
  #text: string[] = [];
  #headingLevel: number | undefined;
  /** Inside a dropped element: its name, and how many of that name are open. */
  #dropped: { readonly name: string; depth: number } | undefined;
  #preformatted = 0;

  onStartTag(token: TagToken): void {
    const name = token.tagName;
    const rawTextMode = rawTextModes.get(name);
    if (rawTextMode !== undefined && !token.selfClosing) this.onRawText(rawTextMode);
    if (this.#dropped) {
      if (this.#dropped.name === name && !token.selfClosing) this.#dropped.depth++;
    } else if (droppedElements.has(name)) {
      if (!token.selfClosing) this.#dropped = { name, depth: 1 };
    } else if (name === 'br') {
      this.#text.push('\n');
    } else if (cellElements.has(name)) {
      this.#text.push(' \t');
    } else if (!inlineElements.has(name)) {
      this.#flush();
      this.#headingLevel = headingLevelOf(name);
      if (name === 'pre') this.#preformatted++;
    }
  }

  onEndTag(token: TagToken): void {
    const name = token.tagName;
    if (this.#dropped) {
      if (this.#dropped.name === name && --this.#dropped.depth === 0) this.#dropped = undefined;
    } else if (!inlineElements.has(name) && !cellElements.has(name)) {
      this.#flush();
      if (name === 'pre') this.#preformatted = Math.max(0, this.#preformatted - 1);
    }
  }

  onCharacter(token: Token.CharacterToken): void {
    if (!this.#dropped) this.#text.push(token.chars);
  }

  onWhitespaceCharacter(token: Token.CharacterToken): void {
    if (!this.#dropped) this.#text.push(this.#preformatted > 0 ? token.chars : ' ');
  }

  onNullCharacter(): void {}
  onComment(): void {}
  onDoctype(): void {}
  onEof(): void {
    this.#flush();
  }

  finish(): TextBlock[] {
    this.#flush();
    return this.#blocks;
  }

  #flush(): void {
    const joined = cleanText(this.#text.join(''));
    const text = this.#preformatted > 0 ? joined.replace(/^\n+|\s+$/g, '') : collapseBlanks(joined);
    this.#text = [];
    if (text.trim() !== '') this.#blocks.push(this.#headingLevel === undefined ? { text } : { text, headingLevel: this.#headingLevel });
    this.#headingLevel = undefined;
  }
}

function headingLevelOf(name: string): number | undefined {
  if (name === 'title') return 1;
  return /^h[1-6]$/.test(name) ? Number(name[1]) : undefined;
}
