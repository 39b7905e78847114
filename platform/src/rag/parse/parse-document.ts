import { BulkheadError } from '../../errors/bulkhead-error.ts';
import { parseCsv } from './csv.ts';
import { decodeText } from './decode-text.ts';
import { detectFormat } from './detect-format.ts';
import { type DocumentFormat, documentLimits, type ParsedDocument, type TextBlock } from './document.ts';
import { parseDocx } from './docx.ts';
import { parseHtml } from './html.ts';
import { parseJson } from './json.ts';
import { parsePdf } from './pdf.ts';
import { parseMarkdown, parsePlainText } from './plain-text.ts';
import { parsePptx } from './pptx.ts';
import { parseXlsx } from './xlsx.ts';

/**
 * The text of an uploaded file. Runs hostile input through big parsers: call it only inside the worker of `DocumentReader`.
 * Throws the errors of `detectFormat` and of each format, `empty_file` when nothing readable is in it, `document_limit` for text
 * beyond `textCharactersMax`.
 */
export async function parseDocument(filename: string, bytes: Uint8Array): Promise<ParsedDocument> {
  const format = detectFormat(filename, bytes);
  const blocks = await parseFormat(format, filename, bytes);
  const characters = blocks.reduce((sum, block) => sum + block.text.length, 0);
  if (characters === 0) throw new BulkheadError('empty_file', 'the file holds no readable text');
  if (characters > documentLimits.textCharactersMax) {
    throw new BulkheadError(
      'document_limit',
      `a document has at most ${documentLimits.textCharactersMax} characters of text; this one has ${characters}`,
    );
  }
  return { format, blocks };
}

function parseFormat(format: DocumentFormat, filename: string, bytes: Uint8Array): Promise<TextBlock[]> | TextBlock[] {
  switch (format) {
    case 'text':
      return parsePlainText(decodeText(bytes));
    case 'markdown':
      return parseMarkdown(decodeText(bytes));
    case 'html':
      return parseHtml(decodeText(bytes));
    case 'csv':
      return parseCsv(decodeText(bytes), filename.toLowerCase().endsWith('.tsv') ? '\t' : ',');
    case 'json':
      return parseJson(decodeText(bytes), /\.(jsonl|ndjson)$/i.test(filename));
    case 'pdf':
      return parsePdf(bytes);
    case 'docx':
      return parseDocx(bytes);
    case 'xlsx':
      return parseXlsx(bytes);
    case 'pptx':
      return parsePptx(bytes);
    default:
      return format satisfies never;
  }
}
