/** The issuer of demo mode: an Ed25519 key of its own in the data directory (mode 0600), made once. */
import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { SignJWT } from 'jose';
import type { Clock } from '../primitives/clock.ts';
import type { TenantId } from '../primitives/ids.ts';
import type { TrustedIssuer } from './verify-jwt.ts';

export interface DevelopmentIssuer {
  readonly trust: TrustedIssuer;
  readonly privateKey: KeyObject;
}

export interface DevelopmentToken {
  readonly tenant: TenantId;
  readonly user: string;
  readonly tier?: string | undefined;
  readonly expiresInSeconds: number;
  readonly clock: Clock;
}

const issuerName = 'http://bulkhead.localhost/demo';
const audience = 'bulkhead';
const daySeconds = 86_400;

export async function openDevelopmentIssuer(dataDir: string): Promise<DevelopmentIssuer> {
  const privateKey = readOrMakeKey(dataDir);
  const publicKey = createPublicKey(privateKey);
  return {
    privateKey,
    trust: {
      issuer: issuerName,
      audience,
      algorithms: ['EdDSA'],
      tokenType: 'at+jwt',
      maxTokenAgeSeconds: daySeconds,
      keys: { find: async (_, algorithm) => (algorithm === 'EdDSA' ? publicKey : undefined) },
      claims: { tenant: 'tenant_id', tier: 'tier', user: 'sub' },
    },
  };
}

export async function mintDevelopmentToken(issuer: DevelopmentIssuer, token: DevelopmentToken): Promise<string> {
  const nowSeconds = Math.floor(token.clock.nowMs() / 1_000);
  return new SignJWT({ tenant_id: token.tenant, ...(token.tier !== undefined && { tier: token.tier }) })
    .setProtectedHeader({ alg: 'EdDSA', typ: 'at+jwt', kid: 'demo' })
    .setIssuer(issuerName)
    .setAudience(audience)
    .setSubject(token.user)
    .setIssuedAt(nowSeconds)
    .setExpirationTime(nowSeconds + token.expiresInSeconds)
    .sign(issuer.privateKey);
}

function readOrMakeKey(dataDir: string): KeyObject {
  const file = join(dataDir, 'demo-issuer.pem');
  mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  try {
    const pem = generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' });
    writeFileSync(file, pem, { mode: 0o600, flag: 'wx' });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
  return createPrivateKey(readFileSync(file, 'utf8'));
}
