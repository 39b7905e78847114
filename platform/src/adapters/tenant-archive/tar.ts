/** Members of a tar file (POSIX.1-1988 ustar): plain files in one list, nothing else. */
import { assert } from '../../primitives/assert.ts';

export const blockBytes = 512;
const nameBytesMax = 100;
/** Mode 0600, no owner, time 0: the same content is the same archive. */
const fixedFields = { mode: '0000600\0', zero: '0000000\0', time: '00000000000\0', magic: 'ustar\u000000' } as const;

export interface TarEntry {
  readonly name: string;
  readonly bytes: number;
}

export function tarHeader({ name, bytes }: TarEntry): Buffer {
  assert(Buffer.byteLength(name) <= nameBytesMax && /^[a-z0-9_./-]+$/.test(name), 'names of members are ours and short');
  const block = Buffer.alloc(blockBytes);
  block.write(name, 0, 'latin1');
  block.write(fixedFields.mode, 100, 'latin1');
  block.write(fixedFields.zero, 108, 'latin1');
  block.write(fixedFields.zero, 116, 'latin1');
  block.write(`${bytes.toString(8).padStart(11, '0')}\0`, 124, 'latin1');
  block.write(fixedFields.time, 136, 'latin1');
  block.write('0', 156, 'latin1');
  block.write(fixedFields.magic, 257, 'latin1');
  block.write(`${checksumOf(block).toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return block;
}

/** What fills the last block of a member. */
export function paddingOf(bytes: number): number {
  return (blockBytes - (bytes % blockBytes)) % blockBytes;
}

/** `end` for the block of zeros behind the last member, undefined for a block that no archive of ours holds. */
export function parseTarHeader(block: Buffer): TarEntry | 'end' | undefined {
  if (block.length !== blockBytes) return undefined;
  if (block.every((byte) => byte === 0)) return 'end';
  const name = textAt(block, 0, nameBytesMax);
  const size = /^[0-7]{11}$/.exec(textAt(block, 124, 12))?.[0];
  if (size === undefined) return undefined;
  const entry = { name, bytes: Number.parseInt(size, 8) };
  // Byte for byte what we would write: no links, no other types, no owners, no second spelling.
  return /^[a-z0-9_./-]+$/.test(name) && tarHeader(entry).equals(block) ? entry : undefined;
}

function textAt(block: Buffer, start: number, length: number): string {
  const field = block.subarray(start, start + length);
  const end = field.indexOf(0);
  return field.subarray(0, end < 0 ? length : end).toString('latin1');
}

/** Sum of all bytes, those of the checksum itself taken as spaces. */
function checksumOf(block: Buffer): number {
  let sum = 0;
  for (const [index, byte] of block.entries()) sum += index >= 148 && index < 156 ? 0x20 : byte;
  return sum;
}
