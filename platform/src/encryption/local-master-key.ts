import { createCipheriv, createDecipheriv, createHash, hkdfSync, randomBytes } from 'node:crypto';
import { assert } from '../primitives/assert.ts';
import type { MasterKey } from './master-key.ts';
import { keyBytes } from './sealed-record.ts';

const nonceBytes = 12;
const tagBytes = 16;

/** A master key in this process, from a file or the environment. Wraps by AES-256-GCM with the context as associated data. */
export function localMasterKey(secret: Uint8Array): MasterKey {
  assert(secret.length === keyBytes, 'a master key has 32 bytes');
  const wrapping = Buffer.from(hkdfSync('sha256', secret, 'bulkhead', 'wrap-1', keyBytes));
  const name = hkdfSync('sha256', secret, 'bulkhead', 'name-1', keyBytes);
  return {
    id: `local:${createHash('sha256').update(Buffer.from(name)).digest('hex').slice(0, 16)}`,
    async wrap(plain, context) {
      const nonce = randomBytes(nonceBytes);
      const cipher = createCipheriv('aes-256-gcm', wrapping, nonce).setAAD(context);
      return Buffer.concat([nonce, cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
    },
    async unwrap(wrapped, context) {
      if (wrapped.length < nonceBytes + tagBytes) return undefined;
      const options = { authTagLength: tagBytes };
      const cipher = createDecipheriv('aes-256-gcm', wrapping, wrapped.subarray(0, nonceBytes), options).setAAD(context);
      cipher.setAuthTag(wrapped.subarray(wrapped.length - tagBytes));
      const plain = cipher.update(wrapped.subarray(nonceBytes, wrapped.length - tagBytes));
      try {
        cipher.final();
      } catch {
        return undefined;
      }
      return plain;
    },
  };
}
