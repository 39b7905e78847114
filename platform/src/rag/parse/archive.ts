/**
 * Reads a ZIP archive that may have been built to harm the reader. Sizes in headers are hints; bytes are counted while inflating.
 * Format: PKWARE APPNOTE 6.3.10; attacks: https://www.bamsoftware.com/hacks/zipbomb/ (overlapping entries).
 */
import { crc32, inflateRawSync } from 'node:zlib';
import { BulkheadError } from '../../errors/bulkhead-error.ts';
import { documentLimits } from './document.ts';

export interface ArchiveEntry {
  readonly name: string;
  readonly bytes: Buffer;
}

/**
 * Every entry, inflated. Throws `archive_limit` for too many entries or bytes, hostile or duplicate names, links, overlaps and
 * archives in archives; `encrypted_document`; `parse_failed` when it is not an archive.
 */
export function readArchive(archive: Buffer): ArchiveEntry[] {
  const headers = readCentralDirectory(archive);
  assertNames(headers);
  const extents = headers.map((header) => locateContent(archive, header));
  assertDisjoint(extents);
  const ratioBytes = Math.max(archive.length * documentLimits.archiveRatioMax, documentLimits.archiveRatioFloorBytes);
  let remaining = Math.min(documentLimits.archiveInflatedBytesMax, ratioBytes);
  const entries: ArchiveEntry[] = [];
  for (const [index, header] of headers.entries()) {
    const extent = extents[index];
    if (extent === undefined || header.name.endsWith('/')) continue;
    const bytes = inflate(archive.subarray(extent.start, extent.end), header, remaining);
    remaining -= bytes.length;
    assertNotArchive(header.name, bytes);
    entries.push({ name: header.name, bytes });
  }
  return entries;
}

/** An archive of these entries, uncompressed and with nothing else in it: the next reader sees exactly what was checked. */
export function writeArchive(entries: readonly ArchiveEntry[]): Buffer {
  const files: Buffer[] = [];
  const directory: Buffer[] = [];
  let offset = 0;
  for (const { name, bytes } of entries) {
    const encodedName = Buffer.from(name, 'utf8');
    const facts = Buffer.alloc(26);
    facts.writeUInt16LE(20, 0);
    facts.writeUInt16LE(utf8NameFlag, 2);
    facts.writeUInt32LE(crc32(bytes), 10);
    facts.writeUInt32LE(bytes.length, 14);
    facts.writeUInt32LE(bytes.length, 18);
    facts.writeUInt16LE(encodedName.length, 22);
    const record = Buffer.alloc(46);
    record.writeUInt32LE(directorySignature, 0);
    record.writeUInt16LE(20, 4);
    facts.copy(record, 6);
    record.writeUInt32LE(offset, 42);
    const local = Buffer.concat([uint32(localSignature), facts, encodedName, bytes]);
    files.push(local);
    directory.push(record, encodedName);
    offset += local.length;
  }
  const listing = Buffer.concat(directory);
  const end = Buffer.alloc(22);
  end.writeUInt32LE(endSignature, 0);
  end.writeUInt16LE(entries.length, 8);
  end.writeUInt16LE(entries.length, 10);
  end.writeUInt32LE(listing.length, 12);
  end.writeUInt32LE(offset, 16);
  return Buffer.concat([...files, listing, end]);
}

const localSignature = 0x04034b50;
const directorySignature = 0x02014b50;
const endSignature = 0x06054b50;
const utf8NameFlag = 0x0800;
const encryptedFlag = 0x0001;
const linkMode = 0o120000;
const formatMask = 0o170000;

interface EntryHeader {
  readonly name: string;
  readonly method: number;
  readonly compressedBytes: number;
  readonly localOffset: number;
}

interface Extent {
  /** Of the local header, from the start of the file. */
  readonly headerStart: number;
  readonly start: number;
  readonly end: number;
}

function readCentralDirectory(archive: Buffer): EntryHeader[] {
  const endOffset = findEnd(archive);
  const count = archive.readUInt16LE(endOffset + 10);
  let offset = archive.readUInt32LE(endOffset + 16);
  if (count === 0xffff || offset === 0xffffffff) throw limit('ZIP64 archives are not read');
  if (count > documentLimits.archiveEntriesMax) {
    throw limit(`an archive has at most ${documentLimits.archiveEntriesMax} entries; this one has ${count}`);
  }
  const headers: EntryHeader[] = [];
  for (let index = 0; index < count; index++) {
    if (offset + 46 > endOffset || archive.readUInt32LE(offset) !== directorySignature) throw broken('its directory is damaged');
    const nameLength = archive.readUInt16LE(offset + 28);
    const length = 46 + nameLength + archive.readUInt16LE(offset + 30) + archive.readUInt16LE(offset + 32);
    if (offset + length > endOffset) throw broken('its directory is damaged');
    headers.push(entryHeader(archive, offset, nameLength));
    offset += length;
  }
  return headers;
}

function findEnd(archive: Buffer): number {
  const first = Math.max(0, archive.length - 22 - 0xffff);
  for (let offset = archive.length - 22; offset >= first; offset--) {
    if (archive.readUInt32LE(offset) === endSignature) return offset;
  }
  throw broken('it has no directory');
}

function entryHeader(archive: Buffer, offset: number, nameLength: number): EntryHeader {
  const flags = archive.readUInt16LE(offset + 8);
  if (flags & encryptedFlag) throw new BulkheadError('encrypted_document', 'the archive is encrypted');
  const mode = archive.readUInt32LE(offset + 38) >>> 16;
  if ((mode & formatMask) === linkMode) throw limit('an archive may not contain links');
  return {
    name: archive.toString('utf8', offset + 46, offset + 46 + nameLength),
    method: archive.readUInt16LE(offset + 10),
    compressedBytes: archive.readUInt32LE(offset + 20),
    localOffset: archive.readUInt32LE(offset + 42),
  };
}

function assertNames(headers: readonly EntryHeader[]): void {
  const seen = new Set<string>();
  for (const { name } of headers) {
    if (isHostileName(name)) throw limit('an entry of the archive has a name that leads out of it');
    const folded = name.toLowerCase();
    if (seen.has(folded)) throw limit('two entries of the archive have the same name');
    seen.add(folded);
  }
}

const deviceName = /^(con|prn|aux|nul|com\d|lpt\d)(\.|$)/i;

function isHostileName(name: string): boolean {
  if (name === '' || name.length > 512 || name.startsWith('/') || /[\\\0:]/.test(name)) return true;
  return name.split('/').some((segment) => segment === '..' || segment === '.' || deviceName.test(segment));
}

function locateContent(archive: Buffer, header: EntryHeader): Extent {
  const headerStart = header.localOffset;
  if (headerStart + 30 > archive.length || archive.readUInt32LE(headerStart) !== localSignature) throw broken('an entry is missing');
  const start = headerStart + 30 + archive.readUInt16LE(headerStart + 26) + archive.readUInt16LE(headerStart + 28);
  const end = start + header.compressedBytes;
  if (end > archive.length) throw broken('an entry is cut off');
  return { headerStart, start, end };
}

function assertDisjoint(extents: readonly Extent[]): void {
  const ordered = extents.toSorted((left, right) => left.headerStart - right.headerStart);
  for (const [index, extent] of ordered.entries()) {
    const previous = ordered[index - 1];
    if (previous && extent.headerStart < previous.end) throw limit('entries of the archive overlap');
  }
}

function inflate(content: Buffer, header: EntryHeader, bytesMax: number): Buffer {
  if (header.method === 0) {
    if (content.length > bytesMax) throw tooLarge();
    return content;
  }
  if (header.method !== 8) throw broken('an entry is compressed in a way that is not read');
  try {
    return inflateRawSync(content, { maxOutputLength: Math.max(1, bytesMax) });
  } catch (error) {
    if (error instanceof RangeError) throw tooLarge();
    throw broken('an entry is damaged');
  }
}

/** Archives in archives are not opened; only the embedded objects of Office may be there, and they are dropped unread. */
function assertNotArchive(name: string, bytes: Buffer): void {
  const isZip = bytes.length > 4 && bytes.readUInt32LE(0) === localSignature;
  if (isZip && !/^(?:word|xl|ppt)\/embeddings\//.test(name)) throw limit('an archive within the archive is not opened');
}

function tooLarge(): BulkheadError {
  const { archiveInflatedBytesMax, archiveRatioMax } = documentLimits;
  return limit(`an archive may inflate to at most ${archiveInflatedBytesMax} bytes and ${archiveRatioMax} times its size`);
}

function limit(message: string): BulkheadError {
  return new BulkheadError('archive_limit', message);
}

function broken(reason: string): BulkheadError {
  return new BulkheadError('parse_failed', `the archive cannot be read: ${reason}`);
}

function uint32(value: number): Buffer {
  const buffer = Buffer.alloc(4);
  buffer.writeUInt32LE(value);
  return buffer;
}
