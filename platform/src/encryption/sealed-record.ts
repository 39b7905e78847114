/**
 * The bytes of one sealed value, AES-256-GCM:
 *
 *   1 byte format (1) | 4 bytes key version, big endian | 12 bytes random nonce | ciphertext | 16 bytes tag
 *
 * What the value is a value of is authenticated and not stored: tenant, table, column, row key and key version. A value that was copied to
 * another tenant, column or row does not open.
 */
import { createCipheriv, createDecipheriv, type KeyObject, randomBytes } from 'node:crypto';
import { assert } from '../primitives/assert.ts';

/** A column whose values are sealed. */
export interface SealedColumn {
  readonly table: string;
  readonly column: string;
  /** Columns that name a row inside its tenant, in this order. They never change while the row lives. */
  readonly rowKey: readonly string[];
  /** The client chose the key: no log holds it. */
  readonly rowKeyIsTheClients?: boolean;
}

/** The values of `rowKey` in its order. */
export type RowKey = readonly (string | number)[];

/** Where a value stands. */
export interface SealedPlace {
  readonly tenantId: string;
  readonly column: SealedColumn;
  readonly row: RowKey;
}

const sealedFormat = 1;
/** A value from before there was encryption: this byte, then the plain value. Read only for tenants who had such rows, until they are sealed. */
export const plainFormat = 0;
const headBytes = 5;
const nonceBytes = 12;
const tagBytes = 16;
export const overheadBytes = headBytes + nonceBytes + tagBytes;
export const keyBytes = 32;
export const keyVersionMax = 0xffff_ffff;

/** Undefined: these bytes are no sealed value. */
export function keyVersionOf(record: Uint8Array): number | undefined {
  if (record.length < overheadBytes || record[0] !== sealedFormat) return undefined;
  return new DataView(record.buffer, record.byteOffset).getUint32(1);
}

/** What every value sealed under this version begins with. */
export function recordHead(version: number): Buffer {
  assert(Number.isInteger(version) && version >= 1 && version <= keyVersionMax, 'key versions count from 1');
  const head = Buffer.alloc(headBytes);
  head[0] = sealedFormat;
  head.writeUInt32BE(version, 1);
  return head;
}

export function sealRecord(
  key: { readonly version: number; readonly secret: KeyObject },
  place: SealedPlace,
  plaintext: Uint8Array,
): Buffer {
  const nonce = randomBytes(nonceBytes);
  const cipher = createCipheriv('aes-256-gcm', key.secret, nonce);
  cipher.setAAD(associatedData(place, key.version));
  const sealed = [recordHead(key.version), nonce, cipher.update(plaintext), cipher.final()];
  return Buffer.concat([...sealed, cipher.getAuthTag()]);
}

/** Undefined: it was sealed under another key or for another place, or was changed since. */
export function openRecord(
  key: { readonly version: number; readonly secret: KeyObject },
  place: SealedPlace,
  record: Uint8Array,
): Buffer | undefined {
  const nonce = record.subarray(headBytes, headBytes + nonceBytes);
  const cipher = createDecipheriv('aes-256-gcm', key.secret, nonce, { authTagLength: tagBytes });
  cipher.setAAD(associatedData(place, key.version));
  cipher.setAuthTag(record.subarray(record.length - tagBytes));
  const plaintext = cipher.update(record.subarray(headBytes + nonceBytes, record.length - tagBytes));
  try {
    cipher.final();
  } catch {
    return undefined;
  }
  return plaintext;
}

function associatedData({ tenantId, column, row }: SealedPlace, version: number): Buffer {
  assert(row.length === column.rowKey.length, 'a row is named by its whole key');
  return lengthPrefixed(['bulkhead-seal-1', tenantId, column.table, column.column, String(version), ...row.map(String)]);
}

/** Each field after its length in bytes, so that no two lists of fields give the same bytes. */
export function lengthPrefixed(fields: readonly string[]): Buffer {
  const bytes = Buffer.allocUnsafe(fields.reduce((sum, field) => sum + 4 + Buffer.byteLength(field), 0));
  let at = 0;
  for (const field of fields) {
    const length = bytes.write(field, at + 4);
    bytes.writeUInt32BE(length, at);
    at += 4 + length;
  }
  return bytes;
}
