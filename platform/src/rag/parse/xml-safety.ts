import { BulkheadError } from '../../errors/bulkhead-error.ts';
import { decodeText } from './decode-text.ts';
import { documentLimits } from './document.ts';

/**
 * Refuses XML that can expand or reach out: any declaration but comments and CDATA (so no DTD, no entities), and nesting beyond
 * `xmlDepthMax`. Linear; runs before an XML parser sees the part. Throws `document_limit`.
 */
export function assertSafeXml(part: Uint8Array): void {
  const xml = decodeText(part);
  let depth = 0;
  let offset = xml.indexOf('<');
  while (offset >= 0) {
    const end = endOfMarkup(xml, offset);
    const kind = xml[offset + 1];
    if (kind === '/') depth--;
    else if (kind !== '!' && kind !== '?' && xml[end - 1] !== '/') depth++;
    if (depth > documentLimits.xmlDepthMax) {
      throw new BulkheadError('document_limit', `XML may nest at most ${documentLimits.xmlDepthMax} deep`);
    }
    offset = xml.indexOf('<', end);
  }
}

/** Index of the character that ends the markup that starts at `offset`. */
function endOfMarkup(xml: string, offset: number): number {
  if (xml.startsWith('<!--', offset)) return indexOrEnd(xml, '-->', offset + 4);
  if (xml.startsWith('<![CDATA[', offset)) return indexOrEnd(xml, ']]>', offset + 9);
  if (xml[offset + 1] === '!') throw new BulkheadError('document_limit', 'XML with a document type or entities is not read');
  if (xml[offset + 1] === '?') return indexOrEnd(xml, '?>', offset + 2);
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
