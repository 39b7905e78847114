/** Items 67 and 68, and every limit of an upload at n and n + 1. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { expectError, secret, startEdge, type TestEdge } from './support/test-edge.ts';

const fileBytesMax = 1_048_576;
let edge: TestEdge;
beforeAll(async () => {
  edge = await startEdge({ bounds: { uploadBytesMax: fileBytesMax } });
});
afterAll(async () => {
  await edge[Symbol.asyncDispose]();
});

async function send(body: string | Buffer, contentType = 'multipart/form-data; boundary=b') {
  const headers = { authorization: `Bearer ${secret}`, 'content-type': contentType };
  const answer = await fetch(`${edge.url}/v1/files`, {
    method: 'POST',
    headers,
    body: typeof body === 'string' ? Buffer.from(body, 'utf8') : body,
  });
  return { status: answer.status, headers: Object.fromEntries(answer.headers), body: await answer.text() };
}

const field = (name: string, value: string) => `--b\r\nContent-Disposition: form-data; name="${name}"\r\n\r\n${value}\r\n`;
const file = (content: string, disposition = 'form-data; name="file"; filename="a.txt"', more = '') =>
  `--b\r\nContent-Disposition: ${disposition}\r\n${more}\r\n${content}\r\n`;
const end = '--b--\r\n';

type Row = readonly [
  name: string,
  body: string | Buffer,
  code: string,
  param?: string | null,
  contentType?: string | undefined,
  status?: number,
];

// biome-ignore format: a table
const rows: readonly Row[] = [
  ['67 no boundary in the content type', file('x') + end, 'invalid_multipart', null, 'multipart/form-data'],
  ['67 an empty boundary', file('x') + end, 'invalid_multipart', null, 'multipart/form-data; boundary='],
  ['67 a boundary of 71 characters', file('x') + end, 'invalid_multipart', null, `multipart/form-data; boundary=${'b'.repeat(71)}`],
  ['67 another boundary than declared', file('x') + end, 'invalid_multipart', null, 'multipart/form-data; boundary=c'],
  ['67 no last boundary', file('x'), 'invalid_multipart'],
  ['67 a body cut inside a part', '--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nxxx', 'invalid_multipart'],
  ['67 a body cut inside a header', '--b\r\nContent-Disposition: form-data', 'invalid_multipart'],
  ['67 the boundary in the content', file('x\r\n--bx\r\ny') + end, 'invalid_multipart'],
  ['67 the boundary at the start of the content', file('--b') + end, 'invalid_multipart'],
  ['67 a longer boundary in the content, with a part behind it', file('x\r\n--bxxContent-Disposition: form-data; name="k"\r\n\r\ny') + end, 'invalid_multipart'],
  ['67 something after the end', `${file('x')}${end}more`, 'invalid_multipart'],
  ['67 something before the start', `hello\r\n${file('x')}${end}`, 'invalid_multipart'],
  ['67 10,000 parts', field('k', 'v').repeat(10_000) + end, 'invalid_multipart'],
  ['67 10,000 parts of different names', Array.from({ length: 10_000 }, (_, index) => field(`k${index}`, 'v')).join('') + end, 'invalid_multipart'],
  ['67 two files of one name', file('x') + file('y') + end, 'invalid_multipart', 'file'],
  ['67 a field twice', field('purpose', 'a') + field('purpose', 'b') + end, 'invalid_multipart', 'purpose'],
  ['67 a file in another part', file('x', 'form-data; name="document"; filename="a"') + end, 'invalid_multipart', 'document'],
  ['67 a part header of 1 MB', file('x', `form-data; name="file"; filename="${'a'.repeat(1_000_000)}"`) + end, 'invalid_multipart'],
  ['67 a part without a name', file('x', 'form-data; filename="a"') + end, 'invalid_multipart'],
  ['67 a part without a disposition', `--b\r\nX: y\r\n\r\nx\r\n${end}`, 'invalid_multipart'],
  ['67 another disposition', file('x', 'attachment; name="file"; filename="a"') + end, 'invalid_multipart'],
  ['67 two dispositions', file('x', 'form-data; name="file"; filename="a"', 'Content-Disposition: form-data; name="purpose"\r\n') + end, 'invalid_multipart'],
  ['67 a parameter twice', file('x', 'form-data; name="file"; name="purpose"; filename="a"') + end, 'invalid_multipart'],
  ['67 an unclosed quote', file('x', 'form-data; name="file') + end, 'invalid_multipart'],
  ['67 base64 as transfer encoding', file('eA==', undefined, 'Content-Transfer-Encoding: base64\r\n') + end, 'invalid_multipart'],
  ['67 a folded header', file('x', 'form-data;\r\n name="file"; filename="a"') + end, 'invalid_multipart'],
  ['67 NUL in a header', file('x', 'form-data; name="fi\0le"; filename="a"') + end, 'invalid_multipart'],
  ['67 a header that is not UTF-8', Buffer.from(file('x', 'form-data; name="file"; filename="\u00e9"') + end, 'latin1'), 'invalid_multipart'],
  ['a field named __proto__', field('__proto__', 'x') + end, 'invalid_multipart'],
  ['a field of 64 KB and a byte', field('purpose', 'x'.repeat(65_537)) + end, 'invalid_value', 'purpose'],
  ['a field that is not UTF-8', Buffer.from(field('purpose', '\u00e9') + end, 'latin1'), 'invalid_encoding', 'purpose'],
  ['a field with U+0000', field('purpose', 'a\0b') + end, 'invalid_string', 'purpose'],
  ['a field that names a tenant', field('tenant_id', 'globex') + end, 'reserved_parameter', 'tenant_id'],
  ['a metadata field that names a tenant', field('metadata[tenant_id]', 'globex') + end, 'reserved_parameter', 'metadata[tenant_id]'],
  ['a file a byte over the limit', file('x'.repeat(fileBytesMax + 1)) + end, 'body_too_large', 'file', undefined, 413],
  ['a body far over the limit', file('x'.repeat(3 * fileBytesMax)) + end, 'body_too_large', null, undefined, 413],
  ['another multipart type', file('x') + end, 'unsupported_media_type', null, 'multipart/mixed; boundary=b', 415],
  ['a form that is not multipart', 'purpose=x', 'unsupported_media_type', null, 'application/x-www-form-urlencoded', 415],
  ['an empty body', '', 'empty_body'],
];

describe('multipart uploads', () => {
  it.each(rows.map(([name, body, code, param, contentType, status = 400]) => ({ name, body, code, param, contentType, status })))(
    'refuses $name',
    async ({ body, code, param, contentType, status }) => {
      expectError(await send(body, contentType), { status, code, ...(param !== undefined && { param }) });
      expect((await send(file('x') + end)).status).toBe(200);
    },
  );

  it('takes what FormData sends', async () => {
    const form = new FormData();
    form.append('purpose', 'assistants');
    form.append('note', 'a "quoted" \r\n line \u{1f600}');
    form.append('file', new Blob(['content'], { type: 'text/plain' }), 'na"me \u00e9.txt');
    const answer = await fetch(`${edge.url}/v1/files`, { method: 'POST', headers: { authorization: `Bearer ${secret}` }, body: form });
    expect(await answer.json()).toEqual({
      fields: { purpose: 'assistants', note: 'a "quoted" \r\n line \u{1f600}' },
      filename: 'na"me \u00e9.txt',
      type: 'text/plain',
      bytes: 7,
    });
  });

  it('takes exactly the limits: the file, 20 fields, 64 KB in one', async () => {
    const fields = Array.from({ length: 19 }, (_, index) => field(`k${index}`, 'v')).join('') + field('long', 'x'.repeat(65_536));
    const answer = await send(file('x'.repeat(fileBytesMax)) + fields + end);
    expect(JSON.parse(answer.body)).toMatchObject({ bytes: fileBytesMax, fields: { k18: 'v' } });
    expectError(await send(file('x') + fields + field('k20', 'v') + end), { status: 400, code: 'invalid_multipart' });
  });

  it('keeps the bytes of a file as they are, boundary-like lines of other boundaries included', async () => {
    for (const content of ['', '\r\n', '-- b', 'x--b', '\r\n--c--\r\n', '\r\n\r\n', '\0\xff']) {
      const answer = await send(Buffer.from(file(content) + end, 'latin1'));
      expect(JSON.parse(answer.body)).toMatchObject({ bytes: content.length });
    }
  });

  // biome-ignore format: a table
  const names: readonly (readonly [string, string])[] = [
    [`filename="a"; filename*=utf-8''..%2f..%2fetc%2fpasswd`, 'passwd'],
    [`filename*=UTF-8'en'na%C3%AFve.txt`, 'na\u00efve.txt'],
    ['filename="../../secret.txt"', 'secret.txt'],
    ['filename="C:\\\\temp\\\\x.doc"', 'x.doc'],
    ['filename="/"', 'upload'],
    ['filename=".."', 'upload'],
    ['filename=""', 'upload'],
    ['filename="a\tb\u202etxt.exe"', 'abtxt.exe'],
    [`filename="${'\u{1f600}'.repeat(200)}.pdf"`, `${'\u{1f600}'.repeat(125)}.pdf`],
    ['filename=bare.txt', 'bare.txt'],
    ['filename="a;b.txt"', 'a;b.txt'],
  ];

  it.each(names)('keeps of %s only a base name', async (parameter, filename) => {
    const answer = await send(file('x', `form-data; name="file"; ${parameter}`) + end);
    expect(answer.status).toBe(200);
    const kept = (JSON.parse(answer.body) as { readonly filename: string }).filename;
    expect(kept.replace('\ufffd', '')).toBe(filename);
    expect(kept.length).toBeLessThanOrEqual(255);
  });
});
