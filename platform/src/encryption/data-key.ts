/** A tenant's data keys as they are kept: wrapped, one row a version. The highest version seals; all of them open. */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import type { TenantId } from '../primitives/ids.ts';
import type { MasterKey, MasterKeys } from './master-key.ts';
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

/** Port: what the operator's rotation does with one tenant's data keys. */
export interface DataKeyCustody {
  list(): Promise<StoredDataKeys>;
  /** The same key, wrapped by another master key. False when it is gone or was wrapped anew meanwhile. */
  replace(key: WrappedDataKey, by: Pick<WrappedDataKey, 'masterKeyId' | 'wrapped'>): Promise<boolean>;
  /** Makes this version and the job that seals everything anew under it, or neither. False when there is this version already. */
  advance(key: WrappedDataKey): Promise<boolean>;
  /** The job alone, for content from before there was encryption. */
  sealPlainRows(): Promise<void>;
}

/** Port: the master keys that may have wrapped something here. */
export interface MasterKeyRegister {
  ids(): Promise<readonly string[]>;
  /** From now on a process may start without it. */
  retire(masterKeyId: string): Promise<void>;
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

/** Undefined: the key does not unwrap. Throws `key_unavailable`. */
export async function rewrapDataKey(
  masters: MasterKeys,
  tenantId: TenantId,
  { version, masterKeyId, wrapped }: WrappedDataKey,
): Promise<Pick<WrappedDataKey, 'masterKeyId' | 'wrapped'> | undefined> {
  const master = masters.byId.get(masterKeyId);
  const key = master && (await unwrapDataKey(master, wrapped, { tenantId, version }));
  if (key === undefined) return undefined;
  const place = { tenantId, version };
  const rewrapped = await wrapDataKey(masters.current, key, place);
  // What cannot be unwrapped must not replace what can.
  const isWhole = (await unwrapDataKey(masters.current, rewrapped, place))?.equals(key) === true;
  key.fill(0);
  return isWhole ? { masterKeyId: masters.current.id, wrapped: rewrapped } : undefined;
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
