/**
 * Reads an archive that came from outside. It is read once whole before anything is believed: every block, every hash, and the signature over the
 * manifest. What was left out, added, changed, cut off or put in another order is refused by name.
 */
import { createHash } from 'node:crypto';
import { type FileHandle, open } from 'node:fs/promises';
import { BulkheadError } from '../../errors/bulkhead-error.ts';
import { isSignedDocument, signatureFault } from '../../primitives/signed-document.ts';
import type { ArchiveManifest, ArchiveSource } from '../../tenancy/tenant-archive.ts';
import { manifestName } from './archive-writer.ts';
import { blockBytes, paddingOf, parseTarHeader } from './tar.ts';

export interface ArchiveBounds {
  readonly archiveBytesMax: number;
  /** One member is in memory at a time. */
  readonly memberBytesMax: number;
  readonly membersMax: number;
}

interface Member {
  readonly name: string;
  readonly body: Buffer;
}

/** Throws `invalid_archive`. `trustedPublicKey` is that of the installation that exported. */
export async function openArchive(path: string, trustedPublicKey: string, bounds: ArchiveBounds): Promise<ArchiveSource> {
  const found: ArchiveManifest['members'][number][] = [];
  let manifest: Buffer | undefined;
  for await (const { name, body } of readMembers(path, bounds)) {
    if (manifest !== undefined) throw invalid(`${name} comes after the manifest`);
    if (name === manifestName) manifest = body;
    else found.push({ name, bytes: body.length, sha256: createHash('sha256').update(body).digest('hex') });
  }
  if (manifest === undefined) throw invalid('the manifest is missing: the archive was cut off');
  const believed = believedManifest(manifest, trustedPublicKey);
  compare(believed.members, found);
  return { manifest: believed, members: () => verifiedMembers(path, bounds, believed) };
}

/** Compared again: the file may have changed since. */
async function* verifiedMembers(path: string, bounds: ArchiveBounds, manifest: ArchiveManifest): AsyncGenerator<Member> {
  let index = 0;
  for await (const member of readMembers(path, bounds)) {
    if (member.name === manifestName) return;
    const { name, body } = member;
    const expected = manifest.members[index++];
    compare(expected === undefined ? [] : [expected], [
      { name, bytes: body.length, sha256: createHash('sha256').update(body).digest('hex') },
    ]);
    yield member;
  }
}

function believedManifest(bytes: Buffer, trustedPublicKey: string): ArchiveManifest {
  let document: unknown;
  try {
    document = JSON.parse(bytes.toString('utf8'));
  } catch {
    throw invalid('the manifest is not JSON');
  }
  const fault = faultOf(document, trustedPublicKey);
  if (fault !== undefined || !isSignedDocument(document)) throw invalid(`the manifest is ${fault}`);
  const manifest = document.body as ArchiveManifest;
  if (manifest.version !== 1) throw invalid('it is of a later version than this program reads');
  return manifest;
}

function faultOf(document: unknown, trustedPublicKey: string) {
  try {
    return signatureFault(document, 'bulkhead.tenant-export', trustedPublicKey);
  } catch {
    throw new BulkheadError('invalid_value', 'must be an Ed25519 public key in PEM', { param: 'public_key' });
  }
}

function compare(expected: ArchiveManifest['members'], found: ArchiveManifest['members']): void {
  for (let index = 0; index < Math.max(expected.length, found.length); index++) {
    const [wanted, there] = [expected[index], found[index]];
    if (there === undefined) throw invalid(`${wanted?.name} is missing`);
    if (wanted === undefined || wanted.name !== there.name) throw invalid(`${there.name} does not belong at its place`);
    if (wanted.bytes !== there.bytes || wanted.sha256 !== there.sha256) throw invalid(`${there.name} was changed`);
  }
}

async function* readMembers(path: string, bounds: ArchiveBounds): AsyncGenerator<Member> {
  const file = await open(path, 'r').catch(() => {
    throw invalid('there is no such archive');
  });
  try {
    const { size } = await file.stat();
    if (size > bounds.archiveBytesMax) throw invalid(`it has ${size} bytes; ${bounds.archiveBytesMax} are read at most`);
    let at = 0;
    for (let count = 0; ; count++) {
      const entry = parseTarHeader(await readExactly(file, at, blockBytes));
      at += blockBytes;
      if (entry === undefined) throw invalid('it holds a block that no archive of a tenant has');
      if (entry === 'end') break;
      if (count >= bounds.membersMax) throw invalid(`it has more than ${bounds.membersMax} members`);
      if (entry.bytes > bounds.memberBytesMax)
        throw invalid(`${entry.name} has ${entry.bytes} bytes; ${bounds.memberBytesMax} are read at most`);
      const body = await readExactly(file, at, entry.bytes);
      at += entry.bytes + paddingOf(entry.bytes);
      yield { name: entry.name, body };
    }
    if (size !== at + blockBytes) throw invalid('something comes after its end');
  } finally {
    await file.close();
  }
}

async function readExactly(file: FileHandle, position: number, bytes: number): Promise<Buffer> {
  const buffer = Buffer.alloc(bytes);
  let read = 0;
  while (read < bytes) {
    const { bytesRead } = await file.read(buffer, read, bytes - read, position + read);
    if (bytesRead === 0) throw invalid('it was cut off');
    read += bytesRead;
  }
  return buffer;
}

function invalid(what: string): BulkheadError {
  return new BulkheadError('invalid_archive', `This archive cannot be imported: ${what}.`);
}
