import { generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { IssuerConfig } from '../config/schema.ts';
import { ManualClock } from '../primitives/clock.ts';
import type { Logger } from '../telemetry/logger.ts';
import { createIssuerRegistry, openIssuer } from './issuer-registry.ts';

const warnings: string[] = [];
const logger: Logger = { debug() {}, info() {}, error() {}, warn: ({ reason }, message) => void warnings.push(`${message}: ${reason}`) };
const parts = { clock: new ManualClock(), logger };
const config: IssuerConfig = {
  issuer: 'https://id.example.com/',
  audience: 'bulkhead',
  jwksUri: 'http://127.0.0.1:9/jwks.json',
  algorithms: ['EdDSA'],
  kind: 'platform',
  claims: { tenant: 'tenant_id', tier: 'tier', user: 'sub' },
  tokenType: 'at+jwt',
  maxTokenAgeSeconds: 3_600,
};
const { kind: _kind, ...unbound } = config;

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'bulkhead-registry-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

describe('the issuer registry', () => {
  it('says for whom an issuer speaks', () => {
    expect(openIssuer(config, parts).speaksFor).toEqual({ kind: 'platform' });
    expect(openIssuer({ ...unbound, tenant: 'acme' }, parts).speaksFor).toEqual({ kind: 'tenant', tenantId: 'acme' });
  });

  it('never lets a mistake turn an issuer of one tenant into one of all', () => {
    expect(() => openIssuer({ ...unbound, tenant: 'Not A Slug' }, parts)).toThrow();
    expect(() => openIssuer({ ...unbound, tenant: '' }, parts)).toThrow();
    expect(() => openIssuer({ ...config, tenant: 'acme' }, parts)).toThrow();
    expect(() => openIssuer(unbound, parts)).toThrow();
  });

  it('has one entry for a name', () => {
    const twice = [openIssuer(config, parts), openIssuer({ ...unbound, tenant: 'acme' }, parts)];
    expect(() => createIssuerRegistry(twice)).toThrow(/configured twice/);
    expect([...createIssuerRegistry(twice.slice(1)).keys()]).toEqual([config.issuer]);
  });

  it('reads a key file at the start', async () => {
    const file = join(folder, 'key.pem');
    const { publicKey } = generateKeyPairSync('ed25519');
    writeFileSync(file, publicKey.export({ type: 'spki', format: 'pem' }));
    const { jwksUri: _, ...keyless } = config;
    const issuer = openIssuer({ ...keyless, publicKeyFile: file }, parts);
    expect((await issuer.keys.find('any', 'EdDSA'))?.equals(publicKey)).toBe(true);
    expect(() => openIssuer({ ...keyless, publicKeyFile: file, algorithms: ['RS256'] }, parts)).toThrow(/fits none/);
    expect(() => openIssuer(keyless, parts)).toThrow(/names the keys/);
  });

  it('tells the operator, not the token, why keys cannot be fetched', async () => {
    expect(await openIssuer(config, parts).keys.find('any', 'EdDSA')).toBeUndefined();
    expect(warnings).toEqual([
      expect.stringMatching(/^the keys of the issuer https:\/\/id[.]example[.]com\/ cannot be fetched: (ECONNREFUSED|UND_ERR\w+)$/),
    ]);
  });
});
