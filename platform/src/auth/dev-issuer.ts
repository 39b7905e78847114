/** The issuer of demo mode: an Ed25519 key of its own in the data directory (mode 0600), made once. Trusted in demo mode alone. */
import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject, randomBytes } from 'node:crypto';
import { chmodSync, linkSync, mkdirSync, readFileSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { SignJWT } from 'jose';
import type { Clock } from '../primitives/clock.ts';
import type { TenantId } from '../primitives/ids.ts';
import type { TrustedIssuer } from './issuer-registry.ts';

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

/** Makes the key when it is missing. Throws when the file there holds no private key. */
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
      speaksFor: { kind: 'platform' },
      claims: { tenant: 'tenant_id', tier: 'tier', user: 'sub' },
    },
  };
}

/** The tenant need not exist; then the token is refused. */
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
    chmodSync(file, 0o600);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    makeKey(file);
  }
  return createPrivateKey(readFileSync(file, 'utf8'));
}

/** Written whole beside it, then linked: of two processes starting together one wins, and neither leaves half a key. */
function makeKey(file: string): void {
  const draft = `${file}.${randomBytes(8).toString('hex')}`;
  const pem = generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' });
  writeFileSync(draft, pem, { mode: 0o600, flag: 'wx' });
  try {
    linkSync(draft, file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  } finally {
    unlinkSync(draft);
  }
}
