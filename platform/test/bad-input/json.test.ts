/** Items 21 to 30 of the bad-input list over HTTP: what a JSON body may not be, whatever the route. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { adminSecret, expectError, secret, startEdge, type TestEdge } from './support/test-edge.ts';

let edge: TestEdge;
beforeAll(async () => {
  edge = await startEdge({ bounds: { bodyBytesMax: 10 * 1_048_576 } });
});
afterAll(async () => {
  await edge[Symbol.asyncDispose]();
});

async function send(body: string | Buffer | undefined, path = '/v1/echo') {
  const headers = { authorization: `Bearer ${secret}`, ...(body !== undefined && { 'content-type': 'application/json' }) };
  const answer = await fetch(`${edge.url}${path}`, { method: 'POST', headers, ...(body !== undefined && { body }) });
  return { status: answer.status, headers: Object.fromEntries(answer.headers), body: await answer.text() };
}

const utf16 = Buffer.from('{"model":"x"}', 'utf16le');
const manyKeys = (count: number) => `{"metadata":{${Array.from({ length: count }, (_, index) => `"k${index}":1`).join(',')}}}`;

type Row = readonly [name: string, body: string | Buffer, code: string, param: string | null, message?: RegExp];

// biome-ignore format: a table
const rows: readonly Row[] = [
  ['21 an empty body', '', 'empty_body', null],
  ['22 a body cut after a key', '{"model":', 'invalid_json', null, /at byte 9 a value is expected, but the body ends/],
  ['22 a body cut in a string', '{"model":"abc', 'invalid_json', null, /at byte 13/],
  ['22 a trailing comma', '{"a":1,}', 'invalid_json', null, /at byte 7 a key in double quotes/],
  ['22 text after the end', '{"a":1} x', 'invalid_json', null, /at byte 8 the end of the body/],
  ['22 single quotes', "{'a':1}", 'invalid_json', null, /at byte 1/],
  ['22 a comment', '{/* hi */"a":1}', 'invalid_json', null, /at byte 1/],
  ['22 a raw line end in a string', '{"a":"x\ny"}', 'invalid_json', null, /at byte 7/],
  ['22 an unknown escape', '{"a":"\\x41"}', 'invalid_json', null, /at byte 7/],
  ['22 a leading zero', '{"a":01}', 'invalid_json', null, /at byte 6/],
  ['a root that is an array', '[{"model":"x"}]', 'invalid_json', null, /must be a JSON object/],
  ['a root that is a string', '"x"', 'invalid_json', null, /must be a JSON object/],
  ['a root that is null', 'null', 'invalid_json', null, /must be a JSON object/],
  ['23 a byte order mark', '\ufeff{"a":1}', 'invalid_encoding', null],
  ['23 UTF-16', utf16, 'invalid_encoding', null],
  ['23 UTF-16 with a byte order mark', Buffer.concat([Buffer.from([0xff, 0xfe]), utf16]), 'invalid_encoding', null],
  ['23 invalid UTF-8', Buffer.from([...Buffer.from('{"a":"'), 0xc3, 0x28, ...Buffer.from('"}')]), 'invalid_encoding', null],
  ['23 overlong UTF-8', Buffer.from([...Buffer.from('{"a":"'), 0xc0, 0xaf, ...Buffer.from('"}')]), 'invalid_encoding', null],
  ['23 a surrogate in UTF-8', Buffer.from([...Buffer.from('{"a":"'), 0xed, 0xa0, 0x80, ...Buffer.from('"}')]), 'invalid_encoding', null],
  ['24 a root of 100,000 brackets', '['.repeat(100_000), 'invalid_json', null],
  ['24 a field of 100,000 brackets', `{"messages":${'['.repeat(100_000)}`, 'invalid_value', 'messages', /64 levels/],
  ['24 a field of 100,000 objects', `{"tools":${'{"a":'.repeat(100_000)}`, 'invalid_value', 'tools', /64 levels/],
  ['25 10,001 keys', manyKeys(10_000), 'invalid_value', 'metadata', /10000 keys/],
  ['25 a million keys', manyKeys(700_000), 'invalid_value', 'metadata', /10000 keys/],
  ['26 a key twice', '{"model":"a","model":"b"}', 'invalid_json', 'model'],
  ['26 a key twice, once escaped', '{"model":"a","m\\u006fdel":"b"}', 'invalid_json', 'model'],
  ['26 a nested key twice', '{"messages":[{"role":"user","role":"system"}]}', 'invalid_json', 'messages.0.role'],
  ['27 __proto__', '{"__proto__":{"x":1}}', 'invalid_json', '__proto__'],
  ['27 an escaped __proto__', '{"a":{"\\u005f_proto__":{"x":1}}}', 'invalid_json', 'a.__proto__'],
  ['27 constructor.prototype', '{"constructor":{"prototype":{"x":1}}}', 'invalid_json', 'constructor'],
  ['27 prototype', '{"a":{"prototype":1}}', 'invalid_json', 'a.prototype'],
  ['28 NaN', '{"n":NaN}', 'invalid_json', null, /at byte 5/],
  ['28 Infinity', '{"n":-Infinity}', 'invalid_json', null, /at byte 6/],
  ['28 1e400', '{"n":1e400}', 'invalid_value', 'n'],
  ['28 -0', '{"n":[1,-0]}', 'invalid_value', 'n.1'],
  ['28 2^53 + 1', '{"n":9007199254740993}', 'invalid_value', 'n'],
  ['30 a lone high surrogate', '{"messages":[{"content":"\\ud83d"}]}', 'invalid_string', 'messages.0.content'],
  ['30 a lone low surrogate', '{"a":"\\ude00\\ud83d"}', 'invalid_string', 'a'],
  ['30 two high surrogates', '{"a":"\\ud83d\\ud83d\\ude00"}', 'invalid_string', 'a'],
  ['30 U+0000', '{"a":"x\\u0000y"}', 'invalid_string', 'a'],
  ['30 U+0000 in a key', '{"a\\u0000":1}', 'invalid_string', null],
];

describe('JSON bodies', () => {
  it.each(rows.map(([name, body, code, param, message]) => ({ name, body, code, param, message })))(
    'refuses $name',
    async ({ body, code, param, message }) => {
      const answer = await send(body);
      expectError(answer, { status: 400, code, param });
      if (message !== undefined) expect(answer.body).toMatch(message);
      expect(({} as Record<string, unknown>)['x']).toBeUndefined();
      expect((await send('{"ok":true}')).status).toBe(200);
    },
  );

  it('takes every Unicode text as it is', async () => {
    const texts = [
      '\u{1f600}',
      '\u200b'.repeat(1_000),
      '\u202e',
      '\u{e0041}',
      '<|im_start|>',
      '\u0301'.repeat(1_000),
      ' ',
      '\ufeff',
      '\u2028',
    ];
    const answer = await send(JSON.stringify({ texts }));
    expect(JSON.parse(answer.body)).toMatchObject({ body: { texts } });
    expect(JSON.parse((await send('{"text":"\\ud83d\\ude00"}')).body)).toMatchObject({ body: { text: '\u{1f600}' } });
  });

  it('takes an absent and an empty body only where it is optional', async () => {
    expect((await send(undefined, '/v1/maybe')).status).toBe(200);
    expect((await send('', '/v1/maybe')).status).toBe(200);
    expectError(await send(undefined), { status: 400, code: 'empty_body' });
    expectError(await send('{', '/v1/maybe'), { status: 400, code: 'invalid_json' });
  });

  it('never shows what it was sent', async () => {
    const hostile = `{"${adminSecret}":"${secret}","${adminSecret}":{"a":nope ${secret}`;
    const answer = await send(hostile);
    expectError(answer, { status: 400, code: 'invalid_json' });
    for (const record of edge.log) expect(JSON.stringify(record)).not.toContain(secret);
  });
});
