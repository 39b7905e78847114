import mammoth from 'mammoth';
import { BulkheadError } from '../../errors/bulkhead-error.ts';
import { readArchive, writeArchive } from './archive.ts';
import type { TextBlock } from './document.ts';
import { parseHtml } from './html.ts';
import { assertSafeXml } from './xml-safety.ts';

/**
 * Word documents. The archive is checked and repacked with its XML parts alone, so the converter cannot read it differently than
 * the checks did, and pictures and embedded objects never reach it.
 */
export async function parseDocx(bytes: Uint8Array): Promise<TextBlock[]> {
  const parts = readArchive(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)).filter(({ name }) => isTextPart(name));
  if (!parts.some(({ name }) => name === '[Content_Types].xml')) {
    throw new BulkheadError('file_type_mismatch', 'the name says docx, the content is another archive');
  }
  for (const part of parts) assertSafeXml(part.bytes);
  return parseHtml(await convert(writeArchive(parts)));
}

function isTextPart(name: string): boolean {
  return name === '[Content_Types].xml' || name === '_rels/.rels' || (name.startsWith('word/') && /\.(xml|rels)$/.test(name));
}

async function convert(archive: Buffer): Promise<string> {
  const convertImage = mammoth.images.imgElement(() => Promise.resolve({ src: '' }));
  try {
    const { value } = await mammoth.convertToHtml({ buffer: archive }, { convertImage, externalFileAccess: false });
    return value;
  } catch (error) {
    throw new BulkheadError('parse_failed', 'the Word document cannot be read', { cause: error });
  }
}
