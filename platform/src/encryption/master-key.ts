/** Port: a key that wraps the tenants' data keys and never leaves its keeper: a file, the environment, or a key management service. */

export interface MasterKey {
  /** Names this key among all that ever wrapped something here. Says nothing about its bytes. */
  readonly id: string;
  /** `context` must be the same when it is unwrapped. Throws `key_unavailable`. */
  wrap(secret: Uint8Array, context: Uint8Array): Promise<Buffer>;
  /** Undefined: wrapped by another key or in another context, or changed since. Throws `key_unavailable` when the keeper cannot be asked. */
  unwrap(wrapped: Uint8Array, context: Uint8Array): Promise<Buffer | undefined>;
}

/** The one that wraps, and those that did before. */
export interface MasterKeys {
  readonly current: MasterKey;
  readonly byId: ReadonlyMap<string, MasterKey>;
}

export function masterKeys(current: MasterKey, previous: readonly MasterKey[] = []): MasterKeys {
  return { current, byId: new Map([...previous, current].map((key) => [key.id, key])) };
}
