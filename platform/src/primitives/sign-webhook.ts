/** Standard Webhooks 1.0.0: `v1` is HMAC-SHA-256 of `id.timestamp.body`, under the key that stands as base64 behind `whsec_`. */
import { createHmac } from 'node:crypto';

const prefix = 'whsec_';
/** The specification's bounds for a key. */
const keyBytesMin = 24;
const keyBytesMax = 64;

export function isWebhookSecret(secret: string): boolean {
  const key = secret.slice(prefix.length);
  const bytes = Buffer.from(key, 'base64');
  const isBase64 = /^[A-Za-z0-9+/]+={0,2}$/.test(key);
  return secret.startsWith(prefix) && isBase64 && bytes.length >= keyBytesMin && bytes.length <= keyBytesMax;
}

/** The headers of one message. */
export function signWebhook(
  secret: string,
  { id, atSeconds, body }: { readonly id: string; readonly atSeconds: number; readonly body: string },
): Readonly<Record<string, string>> {
  const key = Buffer.from(secret.slice(prefix.length), 'base64');
  const signature = createHmac('sha256', key).update(`${id}.${atSeconds}.${body}`).digest('base64');
  return { 'webhook-id': id, 'webhook-timestamp': String(atSeconds), 'webhook-signature': `v1,${signature}` };
}
