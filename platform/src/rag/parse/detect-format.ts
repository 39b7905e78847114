import { BulkheadError, quoteInput } from '../../errors/bulkhead-error.ts';
import type { DocumentFormat } from './document.ts';

/**
 * The format of an upload: what its name says, confirmed by its first bytes. Throws `empty_file`, `unsupported_file_type`,
 * `file_type_mismatch`, and `encrypted_document` for an Office file in its encrypted container.
 */
export function detectFormat(filename: string, bytes: Uint8Array): DocumentFormat {
  if (bytes.length === 0) throw new BulkheadError('empty_file', 'the file has 0 bytes');
  const extension = extensionOf(filename);
  const format = formatOfExtension.get(extension);
  if (format === undefined) {
    throw new BulkheadError('unsupported_file_type', `files named ${quoteInput(`.${extension}`)} cannot be read`);
  }
  const signature = signatureOf(bytes);
  const expected = signatureOfFormat.get(format);
  if (expected === 'zip' && signature === 'ole2') {
    throw new BulkheadError('encrypted_document', 'the document is encrypted, or in the older binary format');
  }
  if (signature !== expected) {
    throw new BulkheadError('file_type_mismatch', `the name says ${format}, the content ${signature ?? 'does not'}`);
  }
  if (expected === undefined) assertTextBytes(bytes, format);
  return format;
}

const formatOfExtension = new Map<string, DocumentFormat>([
  ...entriesOf('text', 'txt text log c cc cpp cs css go h java js kt php py rb rs scala sh sql swift tex ts yaml yml'),
  ...entriesOf('markdown', 'md markdown mdx'),
  ...entriesOf('html', 'html htm xhtml'),
  ...entriesOf('csv', 'csv tsv'),
  ...entriesOf('json', 'json jsonl ndjson'),
  ...entriesOf('pdf', 'pdf'),
  ...entriesOf('docx', 'docx'),
  ...entriesOf('xlsx', 'xlsx'),
  ...entriesOf('pptx', 'pptx'),
]);

function entriesOf(format: DocumentFormat, extensions: string): [string, DocumentFormat][] {
  return extensions.split(' ').map((extension) => [extension, format]);
}

function extensionOf(filename: string): string {
  const base = filename.slice(Math.max(filename.lastIndexOf('/'), filename.lastIndexOf('\\')) + 1);
  const dot = base.lastIndexOf('.');
  return dot < 0 ? '' : base.slice(dot + 1).toLowerCase();
}

const signatureOfFormat = new Map<DocumentFormat, string>([
  ['pdf', 'pdf'],
  ['docx', 'zip'],
  ['xlsx', 'zip'],
  ['pptx', 'zip'],
]);

/** First bytes of formats that are never text; https://en.wikipedia.org/wiki/List_of_file_signatures. */
const signatures: readonly (readonly [string, readonly number[]])[] = [
  ['pdf', [0x25, 0x50, 0x44, 0x46, 0x2d]],
  ['zip', [0x50, 0x4b, 0x03, 0x04]],
  ['zip', [0x50, 0x4b, 0x05, 0x06]],
  ['ole2', [0xd0, 0xcf, 0x11, 0xe0]],
  ['gzip', [0x1f, 0x8b]],
  ['7z', [0x37, 0x7a, 0xbc, 0xaf]],
  ['rar', [0x52, 0x61, 0x72, 0x21]],
  ['xz', [0xfd, 0x37, 0x7a, 0x58]],
  ['bzip2', [0x42, 0x5a, 0x68]],
  ['png', [0x89, 0x50, 0x4e, 0x47]],
  ['gif', [0x47, 0x49, 0x46, 0x38]],
  ['jpeg', [0xff, 0xd8, 0xff]],
  ['elf', [0x7f, 0x45, 0x4c, 0x46]],
];

function signatureOf(bytes: Uint8Array): string | undefined {
  return signatures.find(([, start]) => start.every((byte, index) => bytes[index] === byte))?.[0];
}

/** Text holds no NUL, except as half of a UTF-16 character after a byte-order mark. */
function assertTextBytes(bytes: Uint8Array, format: DocumentFormat): void {
  const isUtf16 = (bytes[0] === 0xff && bytes[1] === 0xfe) || (bytes[0] === 0xfe && bytes[1] === 0xff);
  if (!isUtf16 && bytes.includes(0)) throw new BulkheadError('file_type_mismatch', `the name says ${format}, the content is binary`);
}
