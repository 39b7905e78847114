/**
 * JSON that carries a signature of its own: Ed25519 (RFC 8032) over `kind`, a line end, and the body in canonical form (keys sorted, no spaces). Anybody with
 * the public key checks it offline; the kind keeps one sort of document from passing for another.
 */
import { createHash, createPrivateKey, createPublicKey, type KeyObject, sign, verify } from 'node:crypto';

export interface SignedDocument<Body = unknown> {
  readonly kind: DocumentKind;
  readonly body: Body;
  readonly signature: {
    readonly algorithm: 'Ed25519';
    /** SHA-256 of the public key, 16 hexadecimal digits. */
    readonly keyId: string;
    /** SPKI in PEM. Says which key signed, never that it may be trusted. */
    readonly publicKey: string;
    /** Base64. */
    readonly value: string;
  };
}

export type DocumentKind = 'bulkhead.deletion-receipt' | 'bulkhead.tenant-export' | 'bulkhead.isolation-audit';

/** Why a document is not believed. */
export type SignatureFault = 'not a signed document' | 'of another kind' | 'signed by another key' | 'changed after it was signed';

/** PKCS #8 of an Ed25519 key, before its 32 bytes (RFC 8410). */
const privateKeyHead = Buffer.from('302e020100300506032b657004220420', 'hex');

export class DocumentSigner {
  readonly #privateKey: KeyObject;
  readonly publicKey: string;
  readonly keyId: string;

  /** `seed`: 32 secret bytes; the same seed is the same key. */
  constructor(seed: Uint8Array) {
    this.#privateKey = createPrivateKey({ key: Buffer.concat([privateKeyHead, seed]), format: 'der', type: 'pkcs8' });
    const publicKey = createPublicKey(this.#privateKey);
    this.publicKey = String(publicKey.export({ type: 'spki', format: 'pem' }));
    this.keyId = keyIdOf(publicKey);
  }

  sign<Body>(kind: DocumentKind, body: Body): SignedDocument<Body> {
    const value = sign(null, signedBytes(kind, body), this.#privateKey).toString('base64');
    return { kind, body, signature: { algorithm: 'Ed25519', keyId: this.keyId, publicKey: this.publicKey, value } };
  }
}

/** Undefined: it says what the holder of `trustedPublicKey` (PEM) signed. Never throws for what the document holds. */
export function signatureFault(document: unknown, kind: DocumentKind, trustedPublicKey: string): SignatureFault | undefined {
  if (!isSignedDocument(document)) return 'not a signed document';
  if (document.kind !== kind) return 'of another kind';
  const trusted = createPublicKey(trustedPublicKey);
  if (document.signature.keyId !== keyIdOf(trusted)) return 'signed by another key';
  const isGenuine = verify(null, signedBytes(kind, document.body), trusted, Buffer.from(document.signature.value, 'base64'));
  return isGenuine ? undefined : 'changed after it was signed';
}

export function isSignedDocument(value: unknown): value is SignedDocument {
  const { kind, body, signature } = (value ?? {}) as Partial<SignedDocument>;
  return (
    typeof kind === 'string' &&
    typeof body === 'object' &&
    body !== null &&
    typeof signature === 'object' &&
    signature !== null &&
    signature.algorithm === 'Ed25519' &&
    typeof signature.keyId === 'string' &&
    typeof signature.publicKey === 'string' &&
    typeof signature.value === 'string'
  );
}

/** The same text for equal values, whatever the order in which their keys were written; as JSON, so `undefined` members are left out. */
export function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map((item) => canonicalJson(item ?? null)).join(',')}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const members = Object.entries(value as Readonly<Record<string, unknown>>).filter(([, member]) => member !== undefined);
  const sorted = members.toSorted(([left], [right]) => (left < right ? -1 : 1));
  return `{${sorted.map(([name, member]) => `${JSON.stringify(name)}:${canonicalJson(member)}`).join(',')}}`;
}

function signedBytes(kind: string, body: unknown): Buffer {
  return Buffer.from(`${kind}\n${canonicalJson(body)}`);
}

function keyIdOf(publicKey: KeyObject): string {
  return createHash('sha256')
    .update(publicKey.export({ type: 'spki', format: 'der' }))
    .digest('hex')
    .slice(0, 16);
}
