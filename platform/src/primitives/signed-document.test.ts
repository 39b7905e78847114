import { describe, expect, it } from 'vitest';
import { canonicalJson, DocumentSigner, signatureFault } from './signed-document.ts';

const signer = new DocumentSigner(Buffer.alloc(32, 1));
const other = new DocumentSigner(Buffer.alloc(32, 2));
const kind = 'bulkhead.deletion-receipt';
const body = { tenant: 'acme', surfaces: [{ name: 'file', before: 3, after: 0 }], note: undefined };
const copyOf = (changes: object = {}) => ({ ...(JSON.parse(JSON.stringify(signer.sign(kind, body))) as object), ...changes });
const faultOf = (document: unknown) => signatureFault(document, kind, signer.publicKey);

describe('a signed document', () => {
  it('is believed after a journey as JSON, whatever the order of its keys', () => {
    expect(faultOf(copyOf())).toBeUndefined();
    expect(faultOf(copyOf({ body: { surfaces: [{ after: 0, name: 'file', before: 3 }], tenant: 'acme' } }))).toBeUndefined();
  });

  it.each([
    ['a count changed', copyOf({ body: { ...body, surfaces: [{ name: 'file', before: 3, after: 1 }] } }), 'changed after it was signed'],
    ['a surface left out', copyOf({ body: { ...body, surfaces: [] } }), 'changed after it was signed'],
    ['a member added', copyOf({ body: { ...body, more: true } }), 'changed after it was signed'],
    ['signed by somebody else', other.sign(kind, body), 'signed by another key'],
    [
      'another signature under our key id',
      copyOf({ signature: { ...signer.sign(kind, body).signature, value: other.sign(kind, body).signature.value } }),
      'changed after it was signed',
    ],
    ['of another kind', signer.sign('bulkhead.tenant-export', body), 'of another kind'],
    ['the kind renamed', { ...signer.sign('bulkhead.tenant-export', body), kind }, 'changed after it was signed'],
    ['no signature', { kind, body }, 'not a signed document'],
    ['nothing', undefined, 'not a signed document'],
    ['text', 'receipt', 'not a signed document'],
  ])('is not believed with %s', (_, document, fault) => {
    expect(faultOf(document)).toBe(fault);
  });

  it('has the same key for the same seed', () => {
    expect(new DocumentSigner(Buffer.alloc(32, 1)).publicKey).toBe(signer.publicKey);
    expect(other.keyId).not.toBe(signer.keyId);
  });
});

it('writes equal values alike', () => {
  expect(canonicalJson({ b: [1, undefined, { d: null, c: 'é' }], a: true, x: undefined })).toBe(
    '{"a":true,"b":[1,null,{"c":"é","d":null}]}',
  );
});
