import { inflateSync } from 'node:zlib';
import { extractTextItems, getDocumentProxy, type StructuredTextItem } from 'unpdf';
import { BulkheadError } from '../../errors/bulkhead-error.ts';
import { cleanText, collapseBlanks } from './clean-text.ts';
import { documentLimits, type TextBlock } from './document.ts';

/**
 * The text layer of a PDF; scanned pages have none. Scripts and actions in the file are data that nothing reads; this build of
 * pdf.js has no `eval`. Throws
 * `encrypted_document`, `document_limit` (pages, inflated streams), `parse_failed`.
 */
export async function parsePdf(bytes: Uint8Array): Promise<TextBlock[]> {
  assertStreamsInflateWithinLimit(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength));
  const document = await open(bytes);
  try {
    if (document.numPages > documentLimits.pdfPagesMax) {
      throw new BulkheadError('document_limit', `a PDF has at most ${documentLimits.pdfPagesMax} pages; this one has ${document.numPages}`);
    }
    const { items } = await extractTextItems(document);
    return items.flatMap(blocksOfPage);
  } catch (error) {
    if (error instanceof BulkheadError) throw error;
    throw new BulkheadError('parse_failed', 'the PDF cannot be read: its structure is damaged', { cause: error });
  } finally {
    await document.loadingTask.destroy();
  }
}

async function open(bytes: Uint8Array): ReturnType<typeof getDocumentProxy> {
  try {
    // A copy: the reader takes the buffer over. (`Buffer.slice` would not be one.)
    return await getDocumentProxy(new Uint8Array(bytes), {
      enableXfa: false,
      useSystemFonts: false,
      disableFontFace: true,
      useWorkerFetch: false,
      stopAtErrors: false,
      verbosity: 0,
    });
  } catch (error) {
    if (error instanceof Error && error.name === 'PasswordException') {
      throw new BulkheadError('encrypted_document', 'the PDF is encrypted and needs a password');
    }
    throw new BulkheadError('parse_failed', 'the PDF cannot be read: its structure is damaged', { cause: error });
  }
}

/**
 * The reader inflates a stream whole and its buffers are outside the worker's heap limit, so a stream that inflates to gigabytes is
 * found before: every deflate stream is inflated here once under a bound, and again while its content is one more deflate stream.
 * Streams behind other filters are left to the watch on the worker's memory.
 */
function assertStreamsInflateWithinLimit(pdf: Buffer): void {
  for (let offset = pdf.indexOf('stream'); offset >= 0; offset = pdf.indexOf('stream', offset + 6)) {
    let start = offset + 6;
    if (pdf[start] === 0x0d) start++;
    if (pdf[start] === 0x0a) start++;
    let content: Buffer | undefined = pdf.subarray(start);
    for (let round = 0; round < 4 && content && isDeflate(content); round++) content = inflateWithinLimit(content);
  }
}

function isDeflate(content: Buffer): boolean {
  const [first = 0, second = 0] = content;
  return (first & 0x0f) === 8 && ((first << 8) | second) % 31 === 0;
}

function inflateWithinLimit(content: Buffer): Buffer | undefined {
  try {
    return inflateSync(content, { maxOutputLength: documentLimits.pdfStreamInflatedBytesMax });
  } catch (error) {
    if (!(error instanceof RangeError)) return undefined;
    const bytesMax = documentLimits.pdfStreamInflatedBytesMax;
    throw new BulkheadError('document_limit', `a stream of a PDF may inflate to at most ${bytesMax} bytes`);
  }
}

/** Lines of a page, parted into paragraphs where the gap is wider than usual; larger type is a heading. */
function blocksOfPage(items: readonly StructuredTextItem[]): TextBlock[] {
  const lines = linesOf(items);
  const bodySize = medianOf(lines.map((line) => line.fontSize));
  const blocks: TextBlock[] = [];
  let paragraph: Line[] = [];
  const flush = () => {
    const text = collapseBlanks(cleanText(paragraph.map((line) => line.text).join('\n')));
    const isHeading = paragraph.length <= 2 && text.length <= 200 && paragraph.every((line) => line.fontSize > bodySize * 1.15);
    if (text !== '') blocks.push(isHeading ? { text, headingLevel: 2 } : { text });
    paragraph = [];
  };
  for (const line of lines) {
    const previous = paragraph.at(-1);
    if (previous && startsParagraph(previous, line)) flush();
    paragraph.push(line);
  }
  flush();
  return blocks;
}

interface Line {
  readonly text: string;
  readonly fontSize: number;
  readonly y: number;
}

function linesOf(items: readonly StructuredTextItem[]): Line[] {
  const lines: Line[] = [];
  let text = '';
  let fontSize = 0;
  for (const item of items) {
    text += item.str;
    fontSize = Math.max(fontSize, item.str.trim() === '' ? 0 : item.fontSize);
    if (!item.hasEOL) continue;
    if (text.trim() !== '') lines.push({ text, fontSize, y: item.y });
    text = '';
    fontSize = 0;
  }
  if (text.trim() !== '') lines.push({ text, fontSize, y: items.at(-1)?.y ?? 0 });
  return lines;
}

function startsParagraph(previous: Line, line: Line): boolean {
  const changesSize = Math.abs(previous.fontSize - line.fontSize) > previous.fontSize * 0.1;
  return changesSize || Math.abs(previous.y - line.y) > previous.fontSize * 1.8;
}

function medianOf(values: readonly number[]): number {
  return values.toSorted((left, right) => left - right)[Math.floor(values.length / 2)] ?? 0;
}
