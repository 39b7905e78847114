/**
 * Items 1 to 20 of the bad-input list, byte by byte against a listening server. Item 11 (disconnect) is in streams.test.ts. Item 20 is
 * HTTP/2, which is not spoken here: its preface is refused like any other malformed request.
 */
import { once } from 'node:events';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openConnection } from './support/raw-connection.ts';
import { adminSecret, expectError, secret, startEdge, type TestEdge } from './support/test-edge.ts';

let edge: TestEdge;
beforeAll(async () => {
  edge = await startEdge();
});
afterAll(async () => {
  await edge[Symbol.asyncDispose]();
});

const auth = `Authorization: Bearer ${secret}\r\n`;
const host = 'Host: bulkhead.test\r\n';
const json = 'Content-Type: application/json\r\n';
const ok = `GET /livez HTTP/1.1\r\n${host}\r\n`;

/** A POST with these extra header lines. */
function post(headers: string, body = '{}', path = '/v1/echo'): string {
  return `POST ${path} HTTP/1.1\r\n${host}${auth}${headers}${/content-length|transfer-encoding/i.test(headers) ? '' : `Content-Length: ${Buffer.byteLength(body)}\r\n`}\r\n${body}`;
}

function get(path: string, headers = `${host}${auth}`): string {
  return `GET ${path} HTTP/1.1\r\n${headers}\r\n`;
}

type Row = readonly [name: string, bytes: string, status: number, code: string, keeps?: 'keeps'];

// biome-ignore format: a table
const rows: readonly Row[] = [
  ['1 no Authorization', get('/v1/echo/a', host), 401, 'missing_credentials', 'keeps'],
  ['1 no Authorization on an operator route', `POST /admin/v1/echo HTTP/1.1\r\n${host}${json}Content-Length: 2\r\n\r\n{}`, 401, 'missing_credentials', 'keeps'],
  ['2 an empty bearer', get('/v1/echo/a', `${host}Authorization: Bearer \r\n`), 401, 'missing_credentials', 'keeps'],
  ['2 two tokens in one header', get('/v1/echo/a', `${host}Authorization: Bearer ${secret} x\r\n`), 401, 'missing_credentials', 'keeps'],
  ['2 another scheme', get('/v1/echo/a', `${host}Authorization: Basic ${secret}\r\n`), 401, 'missing_credentials', 'keeps'],
  ['2 a wrong key', get('/v1/echo/a', `${host}Authorization: Bearer nonsense\r\n`), 401, 'invalid_api_key', 'keeps'],
  ['2 a tenant key on an operator route', `POST /admin/v1/echo HTTP/1.1\r\n${host}${auth}${json}Content-Length: 2\r\n\r\n{}`, 401, 'invalid_api_key', 'keeps'],
  ['2 the admin token on a tenant route', get('/v1/echo/a', `${host}Authorization: Bearer ${adminSecret}\r\n`), 401, 'invalid_api_key', 'keeps'],
  ['3 two Authorization headers', get('/v1/echo/a', `${host}${auth}${auth}`), 400, 'duplicate_credentials', 'keeps'],
  ['3 two Authorization headers on an operator route', `POST /admin/v1/echo HTTP/1.1\r\n${host}Authorization: Bearer ${adminSecret}\r\n${auth}${json}Content-Length: 2\r\n\r\n{}`, 400, 'duplicate_credentials', 'keeps'],
  ['4 a header of 17 KB', get('/v1/echo/a', `${host}${auth}X-Big: ${'a'.repeat(17_000)}\r\n`), 431, 'headers_too_large'],
  ['4 a path of 17 KB', get(`/v1/echo/${'a'.repeat(17_000)}`), 431, 'headers_too_large'],
  ['4 101 headers', get('/v1/echo/a', host + auth + Array.from({ length: 99 }, (_, index) => `X-${index}: 1\r\n`).join('')), 431, 'headers_too_large'],
  ['5 Content-Length and Transfer-Encoding', post(`${json}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n`, '2\r\n{}\r\n0\r\n\r\n'), 400, 'malformed_request'],
  ['5 Transfer-Encoding and Content-Length', post(`${json}Transfer-Encoding: chunked\r\nContent-Length: 2\r\n`, '2\r\n{}\r\n0\r\n\r\n'), 400, 'malformed_request'],
  ['6 Transfer-Encoding: chunked, identity', post(`${json}Transfer-Encoding: chunked, identity\r\n`, '2\r\n{}\r\n0\r\n\r\n'), 400, 'malformed_request'],
  ['6 Transfer-Encoding: xchunked', post(`${json}Transfer-Encoding: xchunked\r\n`, '2\r\n{}\r\n0\r\n\r\n'), 400, 'malformed_request'],
  ['6 Transfer-Encoding: gzip, chunked', post(`${json}Transfer-Encoding: gzip, chunked\r\n`, '2\r\n{}\r\n0\r\n\r\n'), 400, 'malformed_request'],
  ['6 two Transfer-Encodings', post(`${json}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n`, '2\r\n{}\r\n0\r\n\r\n'), 400, 'malformed_request'],
  ['7 bare LF', 'GET /livez HTTP/1.1\nHost: x\n\n', 400, 'malformed_request'],
  ['7 bare LF after a header', 'GET /livez HTTP/1.1\r\nHost: x\nX: y\r\n\r\n', 400, 'malformed_request'],
  ['7 obs-fold', get('/livez', `${host}X: a\r\n b\r\n`), 400, 'malformed_request'],
  ['7 NUL in a header', get('/livez', `${host}X: a\0b\r\n`), 400, 'malformed_request'],
  ['7 a space before the colon', get('/livez', `${host}X : a\r\n`), 400, 'malformed_request'],
  ['7 bare CR in a header', get('/livez', `${host}X: a\rb\r\n`), 400, 'malformed_request'],
  ['8 a negative Content-Length', post(`${json}Content-Length: -1\r\n`), 400, 'malformed_request'],
  ['8 a signed Content-Length', post(`${json}Content-Length: +2\r\n`), 400, 'malformed_request'],
  ['8 a Content-Length beyond 64 bit', post(`${json}Content-Length: 99999999999999999999\r\n`), 400, 'malformed_request'],
  ['8 a huge Content-Length', post(`${json}Content-Length: 9999999999\r\n`), 413, 'body_too_large'],
  ['8 two Content-Lengths', post(`${json}Content-Length: 2\r\nContent-Length: 3\r\n`), 400, 'malformed_request'],
  ['8 two Content-Lengths in one', post(`${json}Content-Length: 2, 2\r\n`), 400, 'malformed_request'],
  ['9 a chunk of FFFFFFFFFFFFFFFF bytes', post(`${json}Transfer-Encoding: chunked\r\n`, `FFFFFFFFFFFFFFFF\r\n${'x'.repeat(1_048_577)}`), 413, 'body_too_large'],
  ['9 a chunk size beyond 64 bit', post(`${json}Transfer-Encoding: chunked\r\n`, 'FFFFFFFFFFFFFFFFF\r\n{}'), 400, 'malformed_request'],
  ['9 a chunk size that is none', post(`${json}Transfer-Encoding: chunked\r\n`, 'zz\r\n{}\r\n0\r\n\r\n'), 400, 'malformed_request'],
  ['9 a flood of chunk extensions', post(`${json}Transfer-Encoding: chunked\r\n`, `2;${'a=b;'.repeat(20_000)}a=b\r\n{}\r\n0\r\n\r\n`), 413, 'body_too_large'],
  ['9 a chunk that ends without CRLF', post(`${json}Transfer-Encoding: chunked\r\n`, '2\r\n{}xx0\r\n\r\n'), 400, 'malformed_request'],
  ['12 another expectation', post(`${json}Expect: 200-ok\r\n`), 417, 'expectation_failed'],
  ['13 TRACE', `TRACE /livez HTTP/1.1\r\n${host}\r\n`, 405, 'method_not_allowed', 'keeps'],
  ['13 CONNECT', `CONNECT evil.example:443 HTTP/1.1\r\n${host}\r\n`, 405, 'method_not_allowed'],
  ['13 an unknown method', `FOO /livez HTTP/1.1\r\n${host}\r\n`, 400, 'malformed_request'],
  ['13 a method that the path does not take', `PUT /v1/echo HTTP/1.1\r\n${host}${auth}Content-Length: 0\r\n\r\n`, 405, 'method_not_allowed', 'keeps'],
  ['13 OPTIONS', `OPTIONS /v1/echo HTTP/1.1\r\n${host}\r\n`, 405, 'method_not_allowed', 'keeps'],
  ['13 OPTIONS *', `OPTIONS * HTTP/1.1\r\n${host}\r\n`, 400, 'malformed_request'],
  ['14 no Host', get('/livez', ''), 400, 'malformed_request'],
  ['14 an empty Host', get('/livez', 'Host: \r\n'), 400, 'malformed_request'],
  ['14 two Hosts', get('/livez', `${host}${host}`), 400, 'malformed_request'],
  ['15 X-HTTP-Method-Override is ignored', get('/v1/echo', `${host}${auth}X-HTTP-Method-Override: POST\r\n`), 405, 'method_not_allowed', 'keeps'],
  ['16 //v1/../admin', get('//v1/../admin/v1/echo'), 400, 'malformed_request'],
  ['16 a dot segment', get('/v1/../livez'), 400, 'malformed_request'],
  ['16 a dot segment at the end', get('/v1/echo/..'), 400, 'malformed_request'],
  ['16 a single dot', get('/v1/./echo/a'), 400, 'malformed_request'],
  ['16 an encoded dot segment', get('/v1/echo/%2e%2e'), 400, 'malformed_request'],
  ['16 an encoded slash', get('/v1/echo%2Fa'), 400, 'malformed_request'],
  ['16 an encoded slash in an id of ours', get('/v1/echo/a%2Fb'), 400, 'malformed_request'],
  ['16 a doubly encoded slash', get('/v1/echo/%252Fa'), 400, 'malformed_request'],
  ['16 an encoded NUL', get('/v1/echo/a%00'), 400, 'malformed_request'],
  ['16 an encoded line end', get('/v1/echo/a%0d%0aX-Injected:%201'), 400, 'malformed_request'],
  ['16 overlong UTF-8', get('/v1/echo/%c0%ae'), 400, 'malformed_request'],
  ['16 a cut percent-encoding', get('/v1/echo/a%2'), 400, 'malformed_request'],
  ['16 a backslash', get('/v1\\echo'), 400, 'malformed_request'],
  ['16 a fragment', get('/v1/echo/a#x'), 400, 'malformed_request'],
  ['16 an absolute target', get('http://evil.example/livez'), 400, 'malformed_request'],
  ['16 a space in the path', get('/v1/echo/a b'), 400, 'malformed_request'],
  ['16 raw bytes in the path', get('/v1/echo/\u00e9'), 400, 'malformed_request'],
  ['16 a trailing slash', get('/v1/echo/a/'), 404, 'route_not_found', 'keeps'],
  ['16 an empty parameter', get('/v1/echo/'), 404, 'route_not_found', 'keeps'],
  ['16 upper case', get('/V1/ECHO/a'), 404, 'route_not_found', 'keeps'],
  ['16 an unknown path', get('/v1/nothing'), 404, 'route_not_found', 'keeps'],
  ['17 a gzip body', post(`${json}Content-Encoding: gzip\r\n`, 'xxxx'), 415, 'unsupported_encoding', 'keeps'],
  ['18 Content-Encoding: br, gzip, gzip', post(`${json}Content-Encoding: br, gzip, gzip\r\n`, 'xxxx'), 415, 'unsupported_encoding', 'keeps'],
  ['18 two Content-Encodings', post(`${json}Content-Encoding: identity\r\nContent-Encoding: gzip\r\n`, 'xxxx'), 400, 'malformed_request'],
  ['19 text/plain', post('Content-Type: text/plain\r\n'), 415, 'unsupported_media_type', 'keeps'],
  ['19 no content type', post(''), 415, 'unsupported_media_type', 'keeps'],
  ['19 JSON in UTF-16', post('Content-Type: application/json; charset=utf-16\r\n'), 415, 'unsupported_media_type', 'keeps'],
  ['19 a content type that is none', post('Content-Type: ;;;\r\n'), 415, 'unsupported_media_type', 'keeps'],
  ['19 application/json5', post('Content-Type: application/json5\r\n'), 415, 'unsupported_media_type', 'keeps'],
  ['19 two content types', post(`${json}Content-Type: text/plain\r\n`), 400, 'malformed_request'],
  ['19 JSON where a form is wanted', post(json, '{}', '/v1/files'), 415, 'unsupported_media_type', 'keeps'],
  ['a body where none belongs', `GET /v1/echo/a HTTP/1.1\r\n${host}${auth}${json}Content-Length: 2\r\n\r\n{}`, 400, 'body_not_allowed', 'keeps'],
  ['20 the HTTP/2 preface', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 400, 'malformed_request'],
  ['another HTTP version', `GET /livez HTTP/3.7\r\n${host}\r\n`, 400, 'malformed_request'],
  ['no HTTP at all', '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03', 400, 'malformed_request'],
];

describe('transport and framing', () => {
  it.each(rows.map(([name, bytes, status, code, keeps]) => ({ name, bytes, status, code, keeps })))(
    'refuses $name',
    async ({ bytes, status, code, keeps }) => {
      using connection = await openConnection(edge.port);
      connection.write(Buffer.from(bytes, 'latin1'));
      expectError(await connection.answer(), { status, code });
      if (keeps === 'keeps') {
        connection.write(ok);
        expect((await connection.answer()).status).toBe(200);
      } else await connection.closed();
      expect(edge.gateway.openExchanges()).toBe(0);
      await expectAlive();
    },
  );

  it('names the allowed methods with 405', async () => {
    using connection = await openConnection(edge.port);
    connection.write(`PUT /v1/echo/a HTTP/1.1\r\n${host}Content-Length: 0\r\n\r\n`);
    expect((await connection.answer()).headers['allow']).toBe('GET, DELETE');
  });

  it('answers a lower-case scheme, an x-api-key and an identity coding', async () => {
    using connection = await openConnection(edge.port);
    for (const headers of [`authorization: bearer ${secret}\r\n`, `x-api-key: ${secret}\r\n`, `${auth}Content-Encoding: identity\r\n`]) {
      connection.write(get('/v1/echo/a', host + headers));
      expect((await connection.answer()).status).toBe(200);
    }
  });

  it('refuses every way to name a tenant on a tenant route', async () => {
    using connection = await openConnection(edge.port);
    const selections: readonly (readonly [string, string, string])[] = [
      [get('/v1/echo/a', `${host}${auth}X-Tenant-Id: globex\r\n`), 'tenant_not_selectable', 'x-tenant-id'],
      [get('/v1/echo/a?tenant_id=globex'), 'tenant_not_selectable', 'tenant_id'],
      [get(`/v1/echo/a?api_key=${secret}`), 'credentials_in_query', ''],
      [post(json, '{"tenant_id":"globex"}'), 'reserved_parameter', 'tenant_id'],
      [post(json, '{"metadata":{"tenant_id":"globex"}}'), 'reserved_parameter', 'metadata.tenant_id'],
    ];
    for (const [bytes, code, param] of selections) {
      connection.write(bytes);
      expectError(await connection.answer(), { status: 400, code, ...(param !== '' && { param }) });
    }
    connection.write(
      `POST /admin/v1/echo HTTP/1.1\r\n${host}Authorization: Bearer ${adminSecret}\r\n${json}Content-Length: 20\r\n\r\n{"tenant":  "globex"}`.replace(
        '20',
        '21',
      ),
    );
    expect((await connection.answer()).status).toBe(200);
  });

  it('keeps answers in the order of pipelined requests', async () => {
    using connection = await openConnection(edge.port);
    connection.write(get('/v1/echo/a') + post(json, '{"n":1}') + get('/v1/nothing') + ok);
    const answers = [await connection.answer(), await connection.answer(), await connection.answer(), await connection.answer()];
    expect(answers.map((answer) => answer.status)).toEqual([200, 200, 404, 200]);
    expect(new Set(answers.map((answer) => answer.headers['x-request-id'])).size).toBe(4);
  });

  it('never takes the rest of a refused request for the next one', async () => {
    using connection = await openConnection(edge.port);
    connection.write(
      `POST /v1/echo HTTP/1.1\r\n${host}${auth}${json}Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${get('/v1/echo/smuggled')}`,
    );
    expectError(await connection.answer(), { status: 400, code: 'malformed_request' });
    await connection.closed();
    expect(connection.received()).toBe('');
  });

  it('gives an answer that carries an id of its own, whatever the client calls its request', async () => {
    using connection = await openConnection(edge.port);
    connection.write(get('/v1/echo/a', `${host}${auth}X-Request-Id: mine\r\nX-Client-Request-Id: ticket-7\r\n`));
    const answer = await connection.answer();
    expect(answer.headers['x-request-id']).toMatch(/^req_/);
    connection.write(get('/v1/echo/a', `${host}${auth}X-Client-Request-Id: ${'x'.repeat(513)}\r\n`));
    await connection.answer();
    expect(edge.log.filter((record) => record.clientRequestId !== undefined).map((record) => record.clientRequestId)).toEqual(['ticket-7']);
  });
});

describe('sizes', () => {
  it('takes a body of exactly the limit and refuses one byte more, declared or chunked', async () => {
    const body = (bytes: number) => `{"a":"${'x'.repeat(bytes - 8)}"}`;
    using connection = await openConnection(edge.port);
    connection.write(post(json, body(1_048_576)));
    expect((await connection.answer()).status).toBe(200);
    const chunked = (text: string) =>
      post(`${json}Transfer-Encoding: chunked\r\n`, `${Buffer.byteLength(text).toString(16)}\r\n${text}\r\n0\r\n\r\n`);
    connection.write(chunked(body(1_048_576)));
    expect((await connection.answer()).status).toBe(200);
    for (const bytes of [post(json, body(1_048_577)), chunked(body(1_048_577))]) {
      using refused = await openConnection(edge.port);
      refused.write(bytes);
      expectError(await refused.answer(), { status: 413, code: 'body_too_large' });
      await refused.closed();
    }
  });

  it('lets fetch read the refusal of a body of 20 MB', async () => {
    const headers = { authorization: `Bearer ${secret}`, 'content-type': 'application/json' };
    const answer = await fetch(`${edge.url}/v1/echo`, { method: 'POST', headers, body: `{"a":"${'x'.repeat(20 * 1_048_576)}"}` });
    expectError(
      { status: answer.status, headers: Object.fromEntries(answer.headers), body: await answer.text() },
      { status: 413, code: 'body_too_large' },
    );
  });

  it('lets a client that writes its whole body first read the refusal afterwards', async () => {
    using connection = await openConnection(edge.port);
    connection.socket.pause();
    const head = `POST /v1/echo HTTP/1.1\r\n${host}${auth}${json}Content-Length: 16000000\r\n\r\n`;
    await new Promise<void>((resolve) => connection.socket.write(head + 'x'.repeat(16_000_000), () => resolve()));
    connection.socket.resume();
    expectError(await connection.answer(), { status: 413, code: 'body_too_large' });
    await connection.closed();
  });

  it('refuses a large body of an unknown sender without reading it', async () => {
    using connection = await openConnection(edge.port);
    connection.write(`POST /v1/echo HTTP/1.1\r\n${host}${json}Content-Length: 1000000\r\n\r\n`);
    expectError(await connection.answer(), { status: 401, code: 'missing_credentials' });
  });
});

describe('100-continue', () => {
  it('is said only to a sender that is known', async () => {
    using connection = await openConnection(edge.port);
    connection.write(`POST /v1/echo HTTP/1.1\r\n${host}${json}Expect: 100-continue\r\nContent-Length: 2\r\n\r\n`);
    expectError(await connection.answer(), { status: 401, code: 'missing_credentials' });
    await connection.closed();
    using known = await openConnection(edge.port);
    known.write(`POST /v1/echo HTTP/1.1\r\n${host}${auth}${json}Expect: 100-continue\r\nContent-Length: 2\r\n\r\n`);
    expect((await known.answer()).status).toBe(100);
    known.write('{}');
    expect((await known.answer()).status).toBe(200);
  });
});

describe('timeouts', () => {
  const slow: readonly (readonly [string, string])[] = [
    ['10 headers that never end', `POST /v1/echo HTTP/1.1\r\n${host}`],
    ['10 a body that never ends', `POST /v1/echo HTTP/1.1\r\n${host}${auth}${json}Content-Length: 100\r\n\r\n{`],
    ['10 a chunked body that never ends', `POST /v1/echo HTTP/1.1\r\n${host}${auth}${json}Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n`],
    ['12 100-continue never followed', `POST /v1/echo HTTP/1.1\r\n${host}${auth}${json}Expect: 100-continue\r\nContent-Length: 2\r\n\r\n`],
    [
      '68 an upload that never ends',
      `POST /v1/files HTTP/1.1\r\n${host}${auth}Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 100\r\n\r\n--b\r\n`,
    ],
  ];

  it.each(slow)('ends %s with 408', async (_, bytes) => {
    await using quick = await startEdge({ bounds: { headersTimeoutMs: 200, requestTimeoutMs: 300, uploadTimeoutMs: 300, sweepMs: 50 } });
    using connection = await openConnection(quick.port);
    connection.write(bytes);
    let answer = await connection.answer();
    if (answer.status === 100) answer = await connection.answer();
    expectError(answer, { status: 408, code: 'request_timeout' });
    await connection.closed();
    expect(quick.gateway.openExchanges()).toBe(0);
  });
});

describe('allowed hosts', () => {
  it('answers a foreign host with 421 and a configured one as usual', async () => {
    await using named = await startEdge({ allowedHosts: ['api.example.com', 'api.example.com:8080'] });
    using connection = await openConnection(named.port);
    for (const [name, status] of [
      ['api.example.com', 200],
      ['API.example.com:8080', 200],
      ['evil.example', 421],
      ['api.example.com.evil', 421],
    ] as const) {
      connection.write(get('/livez', `Host: ${name}\r\n`));
      const answer = await connection.answer();
      expect(answer.status).toBe(status);
      if (status === 421) expectError(answer, { status, code: 'misdirected_request' });
    }
  });
});

describe('inject', () => {
  it('serves without a socket what a socket would be served', async () => {
    const headers = { authorization: `Bearer ${secret}`, 'content-type': 'application/json' };
    const answer = await edge.gateway.inject({ method: 'POST', path: '/v1/echo', headers, body: '{"a":1}' });
    expect(answer.status).toBe(200);
    expect(JSON.parse(answer.body)).toEqual({ tenant: 'acme', params: {}, body: { a: 1 } });
    expectError(await edge.gateway.inject({ method: 'GET', path: '/v1/echo/a' }), { status: 401, code: 'missing_credentials' });
    expect(edge.gateway.openExchanges()).toBe(0);
  });
});

async function expectAlive(): Promise<void> {
  using connection = await openConnection(edge.port);
  connection.write(ok.replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n'));
  expect((await connection.answer()).status).toBe(200);
  if (!connection.socket.destroyed) await once(connection.socket, 'close');
}
