import { Ajv2020 } from 'ajv/dist/2020.js';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { seededRandom } from '../../primitives/random.ts';
import { valueForSchema } from './schema-value.ts';

function madeFor(schema: unknown, seed = 1): unknown {
  return valueForSchema(schema, { random: seededRandom(seed), text: (name) => `simulated ${name}` });
}

function faultsOf(schema: object | boolean, value: unknown): string {
  const ajv = new Ajv2020({ strict: false, validateFormats: false });
  ajv.validate(schema, JSON.parse(JSON.stringify(value)));
  return ajv.errorsText();
}

/** Schemas in the dialect of structured outputs and tools, all of them satisfiable. */
/** Without the names at which the validator itself calls methods of the value. */
const plainJson = fc.jsonValue({ maxDepth: 1 }).filter((value) => !/"(valueOf|toString|constructor)"/.test(JSON.stringify(value)));

const { schema: anySchema } = fc.letrec<{ schema: object; leaf: object }>((tie) => ({
  leaf: fc.oneof(
    fc.constantFrom({}, { type: 'boolean' }, { type: 'null' }, { type: ['string', 'null'] }, { type: 'string', format: 'date-time' }),
    fc
      .uniqueArray(plainJson, { minLength: 1, maxLength: 4, selector: (value) => JSON.stringify(value) })
      .map((values) => ({ enum: values })),
    plainJson.map((value) => ({ const: value })),
    fc.tuple(fc.nat(20), fc.nat(20)).map(([low, more]) => ({ type: 'string', minLength: low, maxLength: low + more })),
    fc
      .tuple(fc.integer({ min: -50, max: 50 }), fc.integer({ min: 2, max: 50 }))
      .map(([low, more]) => ({ type: 'integer', minimum: low, maximum: low + more })),
    fc
      .tuple(fc.integer({ min: -50, max: 50 }), fc.integer({ min: 2, max: 50 }))
      .map(([low, more]) => ({ type: 'integer', exclusiveMinimum: low, exclusiveMaximum: low + more })),
    fc
      .tuple(fc.integer({ min: -50, max: 50 }), fc.integer({ min: 1, max: 50 }))
      .map(([low, more]) => ({ type: 'number', exclusiveMinimum: low, exclusiveMaximum: low + more })),
    fc
      .tuple(fc.integer({ min: -50, max: 50 }), fc.integer({ min: 1, max: 9 }))
      .map(([low, multiple]) => ({ type: 'integer', minimum: low, multipleOf: multiple })),
    fc.integer({ min: -50, max: 50 }).map((high) => ({ type: 'number', maximum: high })),
  ),
  schema: fc.oneof(
    { maxDepth: 3, depthSize: 'small' },
    tie('leaf'),
    fc.dictionary(fc.stringMatching(/^[a-z]{1,8}$/), tie('schema'), { maxKeys: 4 }).map((properties) => ({
      type: 'object',
      properties,
      required: Object.keys(properties),
      additionalProperties: false,
    })),
    fc.tuple(tie('schema'), fc.nat(3)).map(([items, minItems]) => ({ type: 'array', items, minItems, maxItems: minItems + 2 })),
    fc.array(tie('schema'), { minLength: 1, maxLength: 3 }).map((anyOf) => ({ anyOf })),
    fc.tuple(tie('schema'), tie('schema')).map(([prefix, items]) => ({ type: 'array', prefixItems: [prefix], items, minItems: 3 })),
  ),
}));

describe('a value made for a schema', () => {
  test('satisfies it', () => {
    fc.assert(
      fc.property(anySchema, fc.nat(1_000), (schema, seed) => {
        expect(faultsOf(schema, madeFor(schema, seed))).toBe('No errors');
      }),
      { numRuns: 150 },
    );
  });

  test.each<[string, object]>([
    [
      'with local definitions',
      { $defs: { 'a/b': { type: 'integer', minimum: 3 } }, type: 'object', properties: { x: { $ref: '#/$defs/a~1b' } }, required: ['x'] },
    ],
    [
      'with a reference and siblings',
      { $defs: { s: { type: 'string' } }, type: 'object', properties: { x: { $ref: '#/$defs/s', minLength: 40 } }, required: ['x'] },
    ],
    [
      'that is a tree',
      {
        type: 'object',
        properties: { children: { type: 'array', items: { $ref: '#' } }, name: { type: 'string' } },
        required: ['children', 'name'],
        additionalProperties: false,
      },
    ],
    [
      'that is a list by links',
      {
        type: 'object',
        properties: { next: { anyOf: [{ $ref: '#' }, { type: 'null' }] } },
        required: ['next'],
        additionalProperties: false,
      },
    ],
    [
      'that is put together',
      {
        allOf: [
          { type: 'object', properties: { a: { type: 'integer' } }, required: ['a'] },
          { properties: { b: { type: 'string' } }, required: ['b'] },
        ],
      },
    ],
    ['with unique items', { type: 'array', items: { type: 'string', maxLength: 4 }, minItems: 5, uniqueItems: true }],
    ['with unique items from a choice', { type: 'array', items: { enum: [1, 2, 3] }, minItems: 3, maxItems: 3 }],
    ['that names no type', { properties: { n: { minimum: 5 }, l: { items: { const: 1 } } }, required: ['n', 'l'] }],
  ])('satisfies one %s', (_name, schema) => {
    expect(faultsOf(schema, madeFor(schema))).toBe('No errors');
  });

  test.each<[string, unknown]>([
    ['refers to itself', { $ref: '#' }],
    ['refers in a circle', { $defs: { a: { $ref: '#/$defs/b' }, b: { $ref: '#/$defs/a' } }, $ref: '#/$defs/a' }],
    ['only infinite values satisfy', { type: 'object', properties: { x: { $ref: '#' }, y: { $ref: '#' } }, required: ['x', 'y'] }],
    ['refers elsewhere', { $ref: 'https://evil.example/schema.json' }],
    ['asks for a million items', { type: 'array', items: { type: 'array', items: {}, minItems: 1e6 }, minItems: 1e6 }],
    ['asks for a gigabyte', { type: 'string', minLength: 1e9 }],
    ['is no schema', [1, 'x', null]],
    ['names the prototype', { type: 'object', properties: { a: { $ref: '#/constructor/prototype' } }, required: ['__proto__', 'a'] }],
  ])('ends for one that %s', (_name, schema) => {
    expect(JSON.stringify(madeFor(schema)).length).toBeLessThan(100_000);
    expect(({} as Record<string, unknown>)['a']).toBeUndefined();
  });
});
