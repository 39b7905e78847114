/**
 * A master key in HashiCorp Vault's transit engine (or OpenBao's, which speaks the same): `POST /v1/<mount>/encrypt/<key>` and `/decrypt/<key>`
 * (https://developer.hashicorp.com/vault/api-docs/secret/transit). The key never leaves Vault; its rotation there is Vault's, which reads its older versions.
 */
import { setTimeout as wait } from 'node:timers/promises';
import { request } from 'undici';
import type { MasterKey } from '../../encryption/master-key.ts';
import { BulkheadError } from '../../errors/bulkhead-error.ts';
import type { Logger } from '../../telemetry/logger.ts';

export interface VaultMasterKeyOptions {
  readonly url: string;
  readonly token: string;
  readonly mount: string;
  readonly keyName: string;
  readonly namespace?: string | undefined;
  /** Of one attempt. */
  readonly timeoutMs: number;
  readonly retriesMax: number;
  readonly logger: Logger;
}

const answerBytesMax = 65_536;
const retryDelayMs = 100;
/** Vault is sealed, busy, or a standby that is not up to date yet. */
const passing = new Set([412, 429, 500, 502, 503, 504]);

export function vaultMasterKey(options: VaultMasterKeyOptions): MasterKey {
  const { mount, keyName } = options;
  return {
    id: `vault:${mount}/${keyName}`,
    async wrap(secret, context) {
      const answer = await ask(options, 'encrypt', { plaintext: base64(secret), associated_data: base64(context) });
      const ciphertext = answer.status === 200 ? answer.data['ciphertext'] : undefined;
      if (typeof ciphertext !== 'string') throw unavailable(options, `encrypt answered ${answer.status}`);
      return Buffer.from(ciphertext, 'utf8');
    },
    async unwrap(wrapped, context) {
      const ciphertext = Buffer.from(wrapped).toString('utf8');
      const answer = await ask(options, 'decrypt', { ciphertext, associated_data: base64(context) });
      const { plaintext } = answer.data;
      if (answer.status === 200 && typeof plaintext === 'string') return Buffer.from(plaintext, 'base64');
      if (answer.status === 400 && isMismatch(answer.errors)) return undefined;
      throw unavailable(options, `decrypt answered ${answer.status}`);
    },
  };
}

interface Answer {
  readonly status: number;
  readonly data: Readonly<Record<string, unknown>>;
  readonly errors: readonly unknown[];
}

/** At most `1 + retriesMax` attempts. Throws `key_unavailable`. */
async function ask(options: VaultMasterKeyOptions, action: 'encrypt' | 'decrypt', body: Readonly<Record<string, string>>): Promise<Answer> {
  for (let attempt = 0; ; attempt++) {
    const outcome = await askOnce(options, action, body).catch(reasonOf);
    if (typeof outcome !== 'string' && !passing.has(outcome.status)) return outcome;
    const reason = typeof outcome === 'string' ? outcome : `${action} answered ${outcome.status}`;
    if (attempt >= options.retriesMax) throw unavailable(options, reason);
    await wait(retryDelayMs * 2 ** attempt);
  }
}

async function askOnce(options: VaultMasterKeyOptions, action: string, body: Readonly<Record<string, string>>): Promise<Answer> {
  const { url, mount, keyName, token, namespace, timeoutMs } = options;
  const answer = await request(`${url.replace(/\/$/, '')}/v1/${mount}/${action}/${keyName}`, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      'x-vault-token': token,
      ...(namespace !== undefined && { 'x-vault-namespace': namespace }),
    },
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(timeoutMs),
  });
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const part of answer.body as AsyncIterable<Buffer>) {
    bytes += part.length;
    if (bytes > answerBytesMax) throw new Error('too long an answer');
    parts.push(part);
  }
  const parsed = parse(Buffer.concat(parts).toString('utf8'));
  return { status: answer.statusCode, data: recordOf(parsed['data']), errors: Array.isArray(parsed['errors']) ? parsed['errors'] : [] };
}

function parse(text: string): Readonly<Record<string, unknown>> {
  try {
    return recordOf(JSON.parse(text));
  } catch {
    return {};
  }
}

function recordOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null ? (value as Readonly<Record<string, unknown>>) : {};
}

/** What Vault says when a ciphertext is not this key's, or not of this associated data. */
function isMismatch(errors: readonly unknown[]): boolean {
  return errors.some((error) => typeof error === 'string' && /message authentication failed|invalid ciphertext/i.test(error));
}

function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return 'unknown error';
  return error.name === 'TimeoutError' ? 'no answer in time' : ((error as NodeJS.ErrnoException).code ?? error.name);
}

function unavailable({ mount, keyName, logger }: VaultMasterKeyOptions, reason: string): BulkheadError {
  logger.error(
    { component: 'vault-transit', code: 'key_unavailable', reason: `${mount}/${keyName}: ${reason}` },
    'the key service does not serve',
  );
  return new BulkheadError('key_unavailable', 'The keys of stored content are not available right now; try again.', {
    retryAfterMs: 1_000,
  });
}

function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('base64');
}
