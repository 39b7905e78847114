import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BulkheadError } from '../errors/bulkhead-error.ts';
import { parseStrictJson } from './strict-json.ts';

type Outcome = { readonly value: unknown } | { readonly code: string; readonly param: string | null };

function parse(text: string | Buffer): Outcome {
  try {
    return { value: parseStrictJson(typeof text === 'string' ? Buffer.from(text) : text) };
  } catch (error) {
    if (!(error instanceof BulkheadError)) throw error;
    return { code: error.code, param: error.param };
  }
}

describe('parseStrictJson', () => {
  it('returns what JSON.parse returns for everything that JSON.stringify can write within the bounds', () => {
    const text = fc.string({ unit: 'grapheme' }).filter((value) => !value.includes('\0'));
    const key = text.filter((value) => !['__proto__', 'constructor', 'prototype'].includes(value));
    const integer = fc.maxSafeInteger().map((value) => (Object.is(value, -0) ? 0 : value));
    const leaf = fc.oneof(
      text,
      fc.boolean(),
      fc.constant(null),
      integer,
      fc.double({ noNaN: true, noDefaultInfinity: true, min: -1e6, max: 1e6 }),
    );
    const { value } = fc.letrec<{ value: unknown; object: object }>((tie) => ({
      value: fc.oneof({ maxDepth: 6 }, leaf, fc.array(tie('value'), { maxLength: 6 }), tie('object')),
      object: fc.dictionary(key, tie('value'), { maxKeys: 6 }),
    }));
    fc.assert(
      fc.property(fc.dictionary(key, value), fc.constantFrom(undefined, 1, '\t', ' \n'), (root, indent) => {
        const json = JSON.stringify(root, null, indent);
        expect(parse(json)).toEqual({ value: JSON.parse(json) });
      }),
      { numRuns: 500 },
    );
  });

  it('accepts no text that JSON.parse refuses, and refuses no text for its syntax that JSON.parse accepts', () => {
    const piece = fc.constantFrom(
      '{',
      '}',
      '[',
      ']',
      ',',
      ':',
      '"',
      '"a"',
      '"b"',
      '"\\u0041"',
      '"\\ud83d\\ude00"',
      '\\',
      '\\u',
      '0',
      '1',
      '-',
      '-1',
      '1.5',
      '.5',
      '1e5',
      '1E+2',
      '01',
      '+',
      'e',
      'true',
      'false',
      'null',
      'nul',
      'NaN',
      ' ',
      '\n',
      '\t',
      '\r',
      '\f',
      '\u00a0',
      '\u2028',
      'é',
      '\x01',
      '{"a":1}',
      '"k":',
      '[]',
      '{}',
      '/*',
      '//',
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 12 }), fc.boolean(), (pieces, wrapped) => {
        const text = wrapped ? `{"x":${pieces.join('')}}` : pieces.join('');
        const ours = parse(text);
        const native = nativeParse(text);
        if ('value' in ours) expect(ours).toEqual(native);
        else if ('value' in native && isObject(native.value)) expect(refusedOnPurpose(text)).toBe(true);
      }),
      { numRuns: 20_000 },
    );
  });

  it('reads any mutation of a valid body as JSON.parse does, or refuses it with one of its codes', () => {
    const valid = JSON.stringify({
      model: 'm',
      messages: [{ role: 'user', content: 'a "b" \\ \u00e9 \u{1f600}' }],
      n: [1, -2.5, 1e-7, true, null, {}],
    });
    const edit = fc.record({ at: fc.nat(valid.length - 1), drop: fc.nat(3), put: fc.string({ maxLength: 3 }) });
    const codes = new Set(['invalid_json', 'invalid_value', 'invalid_string', 'invalid_encoding', 'empty_body']);
    fc.assert(
      fc.property(fc.array(edit, { minLength: 1, maxLength: 3 }), (edits) => {
        const text = edits.reduce((now, { at, drop, put }) => now.slice(0, at) + put + now.slice(at + drop), valid);
        const ours = parse(text);
        if ('value' in ours) expect(ours).toEqual(nativeParse(Buffer.from(text).toString()));
        else expect(codes.has(ours.code)).toBe(true);
      }),
      { numRuns: 20_000 },
    );
  });

  it('survives arbitrary bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
        const ours = parse(Buffer.from(bytes));
        if ('value' in ours) expect(ours).toEqual(nativeParse(Buffer.from(bytes).toString()));
      }),
      { numRuns: 5_000 },
    );
  });

  it('takes exactly 64 levels and 10,000 keys', () => {
    const nested = (levels: number) => `{"a":${'['.repeat(levels - 1)}${']'.repeat(levels - 1)}}`;
    const keyed = (count: number) => `{${Array.from({ length: count }, (_, index) => `"k${index}":1`).join(',')}}`;
    expect(parse(nested(64))).toHaveProperty('value');
    expect(parse(nested(65))).toEqual({ code: 'invalid_value', param: 'a' });
    expect(parse(keyed(10_000))).toHaveProperty('value');
    expect(parse(keyed(10_001))).toEqual({ code: 'invalid_value', param: null });
    expect(parse(`{"list":[${'[],'.repeat(99_997)}[]]}`)).toHaveProperty('value');
    expect(parse(`{"list":[${'[],'.repeat(99_998)}[]]}`)).toEqual({ code: 'invalid_value', param: 'list' });
  });

  it('names the field of a fault however deep it is and never shows more than 64 characters of a key', () => {
    expect(parse('{"a":[{"b":1},{"c":[1,2,"\\ud800"]}]}')).toEqual({ code: 'invalid_string', param: 'a.1.c.2' });
    expect(parse('{"a":{"x":1,"x":2}}')).toEqual({ code: 'invalid_json', param: 'a.x' });
    expect(parse('{"a":{"x":1,"\\u0078":2}}')).toEqual({ code: 'invalid_json', param: 'a.x' });
    expect(parse('{"m":[{"\\u005f_proto__":{}}]}')).toEqual({ code: 'invalid_json', param: 'm.0.__proto__' });
    expect(parse(`{"${'k'.repeat(1_000)}":-0}`)).toEqual({ code: 'invalid_value', param: 'k'.repeat(64) });
    const deep = parse(`${`{"${'k'.repeat(100)}":`.repeat(60)}-0${'}'.repeat(60)}`);
    expect('param' in deep && deep.param?.length).toBe(256);
  });

  it('holds exact numbers only', () => {
    const accepted = [
      '0',
      '9007199254740991',
      '-9007199254740991',
      '0.1',
      '-0.5',
      '1e21',
      '1.7976931348623157e308',
      '5e-324',
      '0e5',
      '0.0',
    ];
    const refused = [
      '9007199254740992',
      '9007199254740993',
      '-9007199254740993',
      '-0',
      '-0.0',
      '-0e9',
      '1e400',
      '-1e400',
      '1e-400',
      '100000000000000000000',
    ];
    for (const literal of accepted) expect(parse(`{"n":${literal}}`), literal).toEqual({ value: { n: Number(literal) } });
    for (const literal of refused) expect(parse(`{"n":${literal}}`), literal).toEqual({ code: 'invalid_value', param: 'n' });
  });
});

function nativeParse(text: string): { readonly value: unknown } | { readonly syntax: true } {
  try {
    return { value: JSON.parse(text) };
  } catch {
    return { syntax: true };
  }
}

function isObject(value: unknown): boolean {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The pieces of the grammar test can make duplicate keys, -0 and integers that a double rounds; nothing else of the list. */
function refusedOnPurpose(text: string): boolean {
  return hasDuplicate(text) || /-0|\d{16}|e\d{3}|E\+\d{3}/.test(text);
}

function hasDuplicate(text: string): boolean {
  const keys = [...text.matchAll(/"((?:a|b|k|x|\\u0041)?)"\s*:/gu)].map(([, key]) => key);
  return new Set(keys).size < keys.length;
}
