/** A tenant's data keys as they are kept: wrapped, one row a version. The highest version seals; all of them open. */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import type { TenantId } from '../primitives/ids.ts';
import type { MasterKey } from './master-key.ts';
import { keyBytes, lengthPrefixed } from './sealed-record.ts';

export interface WrappedDataKey {
  /** From 1; a version is never used twice. */
  readonly version: number;
  readonly masterKeyId: string;
  readonly wrapped: Uint8Array;
  /** How many values may have been sealed under it: taken in blocks before they are sealed. */
  readonly messages: number;
}

export interface StoredDataKeys {
  /** Oldest first. */
  readonly keys: readonly WrappedDataKey[];
  /** The tenant may still have values from before there was encryption. */
  readonly hasPlainRows: boolean;
}

/** Port: one tenant's data keys, in the database where its rows are. */
export interface DataKeyShelf {
  list(): Promise<StoredDataKeys>;
  /** False when there is this version already: whoever was first made the key. */
  add(key: WrappedDataKey): Promise<boolean>;
  /** Counts `messages` towards the version. False when it is gone or that would pass `messagesMax`. */
  reserve(version: number, messages: number, messagesMax: number): Promise<boolean>;
}

export function newDataKey(): Buffer {
  return randomBytes(keyBytes);
}

export function wrapDataKey(master: MasterKey, key: Uint8Array, place: DataKeyPlace): Promise<Buffer> {
  const context = contextOf(master, place);
  return master.wrap(Buffer.concat([key, digestOf(context)]), context);
}

/** Undefined: not this tenant's key of this version under this master key. */
export async function unwrapDataKey(master: MasterKey, wrapped: Uint8Array, place: DataKeyPlace): Promise<Buffer | undefined> {
  const context = contextOf(master, place);
  const plain = await master.unwrap(wrapped, context);
  // A key service that does not know associated data would ignore it; so the context is inside as well.
  const isOurs = plain?.length === keyBytes * 2 && timingSafeEqual(plain.subarray(keyBytes), digestOf(context));
  return isOurs ? plain.subarray(0, keyBytes) : undefined;
}

interface DataKeyPlace {
  readonly tenantId: TenantId;
  readonly version: number;
}

function contextOf(master: MasterKey, { tenantId, version }: DataKeyPlace): Buffer {
  return lengthPrefixed(['bulkhead-data-key-1', tenantId, String(version), master.id]);
}

function digestOf(context: Uint8Array): Buffer {
  return createHash('sha256').update(context).digest();
}
