/**
 * One secret per installation, from configuration (`auth.secret`, required when several replicas share a database) or made once and kept in
 * `<dataDir>/secret` (mode 0600). Everything else is derived from it by HKDF-SHA-256 (RFC 5869) under its own label.
 */
import { hkdfSync, randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export interface Secrets {
  /** Pepper of the digests of API keys. */
  readonly apiKeyPepper: Buffer;
  /** Signs job envelopes. */
  readonly jobEnvelope: Buffer;
  /** Makes the per-tenant salt of upstream prompt caches. */
  readonly cacheSalt: Buffer;
  /** Encrypts the URLs of databases that operators give by the admin API. */
  readonly siloUrls: Buffer;
  /** Seed of the key that signs receipts, archives and audit reports. */
  readonly documentSigning: Buffer;
  /** Makes and recognises canary tokens. */
  readonly canary: Buffer;
  /** Admin token of demo mode; elsewhere it is configured. */
  readonly demoAdminToken: string;
}

export function openSecrets(dataDir: string, configured: string | undefined): Secrets {
  const master = configured === undefined ? keptSecret(dataDir) : Buffer.from(configured, 'utf8');
  const derive = (label: string) => Buffer.from(hkdfSync('sha256', master, 'bulkhead', label, 32));
  return {
    apiKeyPepper: derive('api-key-pepper-1'),
    jobEnvelope: derive('job-envelope-1'),
    cacheSalt: derive('cache-salt-1'),
    siloUrls: derive('silo-urls-1'),
    documentSigning: derive('document-signing-1'),
    canary: derive('canary-1'),
    demoAdminToken: `bha_${derive('demo-admin-token-1').toString('base64url')}`,
  };
}

function keptSecret(dataDir: string): Buffer {
  const file = join(dataDir, 'secret');
  mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  try {
    // `wx` so that two processes starting together agree on one secret.
    writeFileSync(file, randomBytes(32).toString('base64url'), { mode: 0o600, flag: 'wx' });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
  return Buffer.from(readFileSync(file, 'utf8').trim(), 'base64url');
}
