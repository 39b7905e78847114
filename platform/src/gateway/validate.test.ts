import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { BulkheadError } from '../errors/bulkhead-error.ts';
import type { JsonObject } from './exchange.ts';
import { notFound, pageRequestOf, validateBody } from './validate.ts';

function faultOf(run: () => unknown): readonly [string, string | null] {
  try {
    run();
  } catch (error) {
    if (error instanceof BulkheadError) return [error.code, error.param];
    throw error;
  }
  throw new Error('nothing was thrown');
}

const schema = z.strictObject({
  model: z.string(),
  messages: z
    .array(
      z.looseObject({
        role: z.enum(['user', 'system']),
        content: z.union([z.string(), z.array(z.looseObject({ type: z.string() })).min(1), z.null()]).optional(),
      }),
    )
    .min(1)
    .max(2),
  n: z.union([z.number().int().max(128), z.null()]).optional(),
  strategy: z
    .discriminatedUnion('type', [
      z.strictObject({ type: z.literal('auto') }),
      z.strictObject({ type: z.literal('static'), size: z.number() }),
    ])
    .optional(),
  bias: z.record(z.string().regex(/^\d+$/), z.number()).optional(),
});

const valid: JsonObject = { model: 'm', messages: [{ role: 'user', content: 'x' }] };
// biome-ignore format: a table
const faults: readonly (readonly [string, JsonObject, string, string | null])[] = [
  ['a missing field', { messages: valid['messages'] }, 'missing_required_parameter', 'model'],
  ['a missing nested field', { ...valid, messages: [{ content: 'x' }] }, 'missing_required_parameter', 'messages.0.role'],
  ['a null where there is no null', { ...valid, model: null }, 'invalid_value', 'model'],
  ['a wrong type', { ...valid, messages: {} }, 'invalid_value', 'messages'],
  ['a wrong word', { ...valid, messages: [{ role: 'System' }] }, 'invalid_value', 'messages.0.role'],
  ['too many items', { ...valid, messages: [valid, valid, valid] }, 'invalid_value', 'messages'],
  ['an unknown field', { ...valid, colour: 1 }, 'unknown_parameter', 'colour'],
  ['an unknown nested field', { ...valid, strategy: { type: 'auto', size: 1 } }, 'unknown_parameter', 'strategy.size'],
  ['a broken rule inside a nullable union', { ...valid, n: 1e9 }, 'invalid_value', 'n'],
  [
    'a fault deep in one branch of a union',
    { ...valid, messages: [{ role: 'user', content: [{ kind: 'x' }] }] },
    'missing_required_parameter',
    'messages.0.content.0.type',
  ],
  ['an unknown discriminator', { ...valid, strategy: { type: 'magic' } }, 'invalid_value', 'strategy.type'],
  ['a missing discriminator', { ...valid, strategy: {} }, 'missing_required_parameter', 'strategy.type'],
  ['a bad key', { ...valid, bias: { abc: 1 } }, 'invalid_value', 'bias.abc'],
  ['a bad key of 1,000 characters', { ...valid, bias: { ['k'.repeat(1_000)]: 1 } }, 'invalid_value', `bias.${'k'.repeat(64)}`],
];

describe('validateBody', () => {
  it('returns the parsed body', () => {
    expect(validateBody(schema, valid)).toEqual(valid);
  });

  it.each(faults)('names the field of %s', (_, body, code, param) => {
    expect(faultOf(() => validateBody(schema, body))).toEqual([code, param]);
  });

  it('never shows more than 64 characters of a key in its message', () => {
    const key = `secret-${'k'.repeat(500)}`;
    for (const body of [
      { ...valid, [key]: 1 },
      { ...valid, bias: { [key]: 1 } },
    ]) {
      expect(() => validateBody(schema, body)).toThrow(expect.objectContaining({ message: expect.not.stringContaining('k'.repeat(65)) }));
    }
  });
});

describe('pageRequestOf', () => {
  const page = (text: string, limits = {}) => pageRequestOf(new URLSearchParams(text), limits);

  it('fills in the defaults', () => {
    expect(page('')).toEqual({ limit: 20, order: 'desc', after: undefined, before: undefined });
    expect(page('', { limitDefault: 10_000, limitMax: 10_000 }).limit).toBe(10_000);
    expect(page('limit=100&order=asc&after=file-1&before=file_2')).toEqual({ limit: 100, order: 'asc', after: 'file-1', before: 'file_2' });
    expect(page('after=').after).toBeUndefined();
  });

  it.each(['limit=0', 'limit=101', 'limit=-1', 'limit=1.5', 'limit=', 'limit=1e2', 'limit=%00', 'limit=99999999999999999999', 'order=up'])(
    'refuses %s',
    (query) => {
      expect(faultOf(() => page(query))[0]).toBe('invalid_value');
    },
  );

  it.each(["after=' or 1=1", 'before=a%00b', `after=${'x'.repeat(129)}`, 'after=../x', 'after=-x'])(
    'refuses the forged cursor %s',
    (query) => {
      expect(faultOf(() => page(query))[0]).toBe('invalid_cursor');
    },
  );
});

describe('notFound', () => {
  it('says what is absent in at most 64 characters of the id', () => {
    expect(notFound('file', 'x'.repeat(1_000)).message.length).toBeLessThan(100);
    expect(notFound('file', 'file-1')).toMatchObject({ code: 'not_found', message: 'there is no file "file-1"', param: null });
  });
});
