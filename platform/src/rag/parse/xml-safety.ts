import { BulkheadError } from '../../errors/bulkhead-error.ts';
import { decodeText } from './decode-text.ts';
import { documentLimits } from './document.ts';

/** What `readXml` meets, in order. Names come without their prefix. */
export interface XmlHandler {
  open(element: XmlElement): void;
  close(name: string): void;
  text(text: string): void;
}

/** A start tag. An element without content is closed right after it. */
export class XmlElement {
  readonly name: string;
  readonly #tag: string;
  #attributes: ReadonlyMap<string, string> | undefined;

  constructor(tag: string) {
    this.#tag = tag;
    this.name = localName(tag);
  }

  /** The value of the attribute of this name, with its prefix if it has one (`r:id`). */
  attribute(name: string): string | undefined {
    this.#attributes ??= new Map(Array.from(this.#tag.matchAll(attributePattern), (match) => [match[1] ?? '', match[2] ?? match[3] ?? '']));
    const value = this.#attributes.get(name);
    return value === undefined ? undefined : unescapeXml(value);
  }
}

const attributePattern = /\s([^\s=/>"']+)\s*=\s*(?:"([^"]*)"|'([^']*)')/g;

/**
 * Refuses XML that can expand or reach out: any declaration but comments and CDATA (so no DTD, no entities), and nesting beyond
 * `xmlDepthMax`. Linear; runs before an XML parser sees the part. Throws `document_limit`.
 */
export function assertSafeXml(part: Uint8Array): void {
  walk(decodeText(part), { open() {}, close() {}, text() {} });
}

/** The part, event by event and without a tree, under the same refusals. What is not well-formed is read as far as it makes sense. */
export function readXml(part: Uint8Array, handler: XmlHandler): void {
  walk(decodeText(part), handler);
}

function walk(xml: string, handler: XmlHandler): void {
  let depth = 0;
  let textStart = 0;
  for (let offset = xml.indexOf('<'); offset >= 0; offset = xml.indexOf('<', textStart)) {
    if (offset > textStart) handler.text(unescapeXml(xml.slice(textStart, offset)));
    const end = endOfMarkup(xml, offset);
    const kind = xml[offset + 1];
    textStart = end + 1;
    if (xml.startsWith(cdataStart, offset)) {
      handler.text(xml.slice(offset + cdataStart.length, end));
      textStart = end + ']]>'.length;
    } else if (kind === '/') {
      depth--;
      handler.close(localName(xml.slice(offset + 2, end)));
    } else if (kind !== '!' && kind !== '?') {
      depth += openElement(xml.slice(offset + 1, end), handler);
    }
    if (depth > documentLimits.xmlDepthMax) {
      throw new BulkheadError('document_limit', `XML may nest at most ${documentLimits.xmlDepthMax} deep`);
    }
  }
}

/** Returns how much deeper it leads. */
function openElement(tag: string, handler: XmlHandler): 0 | 1 {
  const element = new XmlElement(tag);
  handler.open(element);
  if (!tag.endsWith('/')) return 1;
  handler.close(element.name);
  return 0;
}

const cdataStart = '<![CDATA[';

/** Index of the character that ends the markup that starts at `offset`; of CDATA, the first of the three. */
function endOfMarkup(xml: string, offset: number): number {
  if (xml.startsWith('<!--', offset)) return indexOrEnd(xml, '-->', offset + 4) + 2;
  if (xml.startsWith(cdataStart, offset)) return indexOrEnd(xml, ']]>', offset + cdataStart.length);
  if (xml[offset + 1] === '!') throw new BulkheadError('document_limit', 'XML with a document type or entities is not read');
  if (xml[offset + 1] === '?') return indexOrEnd(xml, '?>', offset + 2) + 1;
  return endOfTag(xml, offset);
}

/** The `>` that ends a tag; one inside a quoted attribute value does not. */
function endOfTag(xml: string, offset: number): number {
  let quote = '';
  for (let index = offset + 1; index < xml.length; index++) {
    const character = xml.charAt(index);
    if (quote !== '') {
      if (character === quote) quote = '';
    } else if (character === '"' || character === "'") {
      quote = character;
    } else if (character === '>') {
      return index;
    }
  }
  return xml.length;
}

function indexOrEnd(xml: string, text: string, from: number): number {
  const index = xml.indexOf(text, from);
  return index < 0 ? xml.length : index;
}

function localName(tag: string): string {
  const name = /^[^\s/>]*/.exec(tag)?.[0] ?? '';
  return name.slice(name.indexOf(':') + 1);
}

const entities = new Map([
  ['lt', '<'],
  ['gt', '>'],
  ['amp', '&'],
  ['quot', '"'],
  ['apos', "'"],
]);

/** The five entities of XML and references to characters; anything else stays as it is written. */
function unescapeXml(text: string): string {
  if (!text.includes('&')) return text;
  return text.replace(/&(?:#x([0-9a-f]{1,6})|#([0-9]{1,7})|([a-z]{2,4}));/gi, (whole, hex?: string, decimal?: string, name?: string) => {
    if (name !== undefined) return entities.get(name) ?? whole;
    const code = hex === undefined ? Number(decimal) : Number.parseInt(hex, 16);
    return code > 0 && code <= 0x10ffff ? String.fromCodePoint(code) : whole;
  });
}
