/**
 * The identity provider of one canary tenant of the isolation audit: its key is made at start, lives in memory and speaks for that tenant alone, through
 * the same registry and verification as any other. With it the audit forges tokens that are wrong in one thing only. It is believed only while an audit runs.
 */
import { createPublicKey, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import type { TenantId } from '../primitives/ids.ts';
import type { TrustedIssuer } from './issuer-registry.ts';

const audience = 'bulkhead-audit';
const kid = 'audit';
const maxTokenAgeSeconds = 3_600;

export class CanaryIssuer {
  readonly issuer: string;
  readonly audience = audience;
  readonly kid = kid;
  readonly publicKeyPem: string;
  readonly trust: TrustedIssuer;
  readonly #privateKey: KeyObject;

  constructor(tenantId: TenantId, isOpen: () => boolean) {
    this.issuer = `urn:bulkhead:audit:${tenantId}`;
    this.#privateKey = generateKeyPairSync('ed25519').privateKey;
    const publicKey = createPublicKey(this.#privateKey);
    this.publicKeyPem = String(publicKey.export({ type: 'spki', format: 'pem' }));
    this.trust = {
      issuer: this.issuer,
      audience,
      algorithms: ['EdDSA'],
      tokenType: 'at+jwt',
      maxTokenAgeSeconds,
      keys: { find: async (named, algorithm) => (isOpen() && algorithm === 'EdDSA' && (named ?? kid) === kid ? publicKey : undefined) },
      speaksFor: { kind: 'tenant', tenantId },
      claims: { tenant: 'tenant_id', tier: 'tier', user: 'sub' },
    };
  }

  /** A JWS of whatever header and claims it is given. */
  sign(header: Readonly<Record<string, unknown>>, claims: string): string {
    const signed = `${Buffer.from(JSON.stringify(header)).toString('base64url')}.${Buffer.from(claims).toString('base64url')}`;
    return `${signed}.${sign(null, Buffer.from(signed), this.#privateKey).toString('base64url')}`;
  }
}
