/** The adapter against a server that answers as Vault documents it, and against one that does not. */
import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';
import { setTimeout as wait } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { vaultMasterKey } from '../../src/adapters/vault-transit/vault-master-key.ts';
import type { MasterKey } from '../../src/encryption/master-key.ts';
import type { LogFields } from '../../src/telemetry/logger.ts';
import { silentLogger } from '../../src/telemetry/logger.ts';
import { answer, ScriptedUpstream, type UpstreamScript } from '../support/scripted-upstream.ts';

const secret = Buffer.from('the data key and the digest of its place');
const context = Buffer.from('acme 1');
const token = 'hvs.token-that-must-stay-secret';
let vault: ScriptedUpstream;
let key: MasterKey;
let logged: LogFields[];

/** Encrypts for real, so that what comes back was there. */
function transit(): UpstreamScript {
  const bytes = randomBytes(32);
  return (response, { path, body }) => {
    const associated = Buffer.from(String(body['associated_data']), 'base64');
    if (path === '/v1/transit/encrypt/bulkhead') {
      const nonce = randomBytes(12);
      const cipher = createCipheriv('aes-256-gcm', bytes, nonce).setAAD(associated);
      const sealed = Buffer.concat([nonce, cipher.update(String(body['plaintext']), 'base64'), cipher.final(), cipher.getAuthTag()]);
      return answer(200, { data: { ciphertext: `vault:v1:${sealed.toString('base64')}`, key_version: 1 } })(response, {
        path,
        body,
        headers: {},
      });
    }
    const sealed = Buffer.from(String(body['ciphertext']).replace('vault:v1:', ''), 'base64');
    const cipher = createDecipheriv('aes-256-gcm', bytes, sealed.subarray(0, 12)).setAAD(associated);
    cipher.setAuthTag(sealed.subarray(-16));
    const plain = cipher.update(sealed.subarray(12, -16));
    try {
      cipher.final();
    } catch {
      return answer(400, { errors: ['cipher: message authentication failed'] })(response, { path, body, headers: {} });
    }
    return answer(200, { data: { plaintext: plain.toString('base64') } })(response, { path, body, headers: {} });
  };
}

beforeEach(async () => {
  vault = await ScriptedUpstream.start(transit());
  logged = [];
  key = vaultMasterKey({
    url: vault.baseUrl.replace('/v1', '/'),
    token,
    mount: 'transit',
    keyName: 'bulkhead',
    namespace: 'team',
    timeoutMs: 300,
    retriesMax: 2,
    logger: { ...silentLogger, error: (fields) => logged.push(fields) },
  });
});
afterEach(async () => {
  await vault[Symbol.asyncDispose]();
});

const hangUp: UpstreamScript = (response) => {
  response.destroy();
};
const unavailable = { code: 'key_unavailable' };

describe('a master key in Vault', () => {
  it('wraps and unwraps, with the token and the namespace in their headers', async () => {
    const wrapped = await key.wrap(secret, context);
    expect(wrapped.toString()).toMatch(/^vault:v1:/);
    expect((await key.unwrap(wrapped, context))?.equals(secret)).toBe(true);
    expect(vault.received[0]).toMatchObject({
      path: '/v1/transit/encrypt/bulkhead',
      headers: { 'x-vault-token': token, 'x-vault-namespace': 'team' },
    });
    expect(vault.received[1]?.path).toBe('/v1/transit/decrypt/bulkhead');
  });

  it('unwraps nothing in another context, and nothing that was changed', async () => {
    const wrapped = await key.wrap(secret, context);
    expect(await key.unwrap(wrapped, Buffer.from('globex 1'))).toBeUndefined();
    const changed = Buffer.from(wrapped.toString().replace(/.(?=....$)/, (letter) => (letter === 'A' ? 'B' : 'A')));
    expect(await key.unwrap(changed, context)).toBeUndefined();
  });

  it.each([
    ['is sealed', answer(503, { errors: ['Vault is sealed'] }), 3],
    ['is busy', answer(429, { errors: [] }), 3],
    ['does not know the token', answer(403, { errors: ['permission denied'] }), 1],
    ['does not know the key', answer(400, { errors: ['encryption key not found'] }), 1],
    ['answers something else', answer(200, '<html>hello</html>'), 1],
    ['answers without end', answer(200, 'x'.repeat(100_000)), 3],
    ['answers too late', async () => wait(1_000), 3],
    ['hangs up', hangUp, 3],
  ] as const)('that %s is unavailable after a bounded number of attempts, and says why without a secret', async (_, script, attempts) => {
    const wrapped = await key.wrap(secret, context);
    vault.received.length = 0;
    vault.answerWith(script);
    await expect(key.unwrap(wrapped, context)).rejects.toMatchObject(unavailable);
    expect(vault.received).toHaveLength(attempts);
    expect(logged).toHaveLength(1);
    expect(JSON.stringify(logged)).not.toContain('secret');
  });

  it('serves again after an attempt that failed', async () => {
    const wrapped = await key.wrap(secret, context);
    const working = transit();
    vault.answerWith(async (response, request) => {
      vault.answerWith(working);
      await answer(500, {})(response, request);
    });
    // Another key by now: what matters is that the second attempt was made and answered.
    expect(await key.unwrap(wrapped, context)).toBeUndefined();
    expect(vault.received).toHaveLength(3);
  });

  it('that is not there at all is unavailable', async () => {
    const wrapped = await key.wrap(secret, context);
    await vault[Symbol.asyncDispose]();
    await expect(key.unwrap(wrapped, context)).rejects.toMatchObject(unavailable);
    vault = await ScriptedUpstream.start(transit());
  });
});
