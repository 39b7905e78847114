import { describe, expect, it } from 'vitest';
import { checkJsonSchema } from './json-schema-safety.ts';

function chain(length: number): Record<string, unknown> {
  const definitions = Object.fromEntries(
    Array.from({ length }, (_, index) => [`d${index}`, index + 1 < length ? { $ref: `#/$defs/d${index + 1}` } : { type: 'string' }]),
  );
  return { $ref: '#/$defs/d0', $defs: definitions };
}

function nested(depth: number): unknown {
  let schema: unknown = { type: 'string' };
  for (let level = 0; level < depth; level++) schema = { type: 'array', items: schema };
  return schema;
}

describe('checkJsonSchema', () => {
  it.each([
    ['a plain object schema', { type: 'object', properties: { name: { type: 'string', pattern: '^[a-z]{1,8}$' } } }],
    ['a property that is called $ref', { type: 'object', properties: { $ref: { type: 'string' } } }],
    [
      'a shared definition used twice',
      { properties: { a: { $ref: '#/$defs/x' }, b: { $ref: '#/$defs/x' } }, $defs: { x: { type: 'number' } } },
    ],
    ['a chain of 20 references', chain(20)],
    ['nothing', true],
  ])('accepts %s', (_, schema) => {
    expect(() => checkJsonSchema(schema, 'schema')).not.toThrow();
  });

  it.each([
    ['a reference chain of 10,000', chain(10_000), /references|nodes/],
    ['a schema that refers to itself', { properties: { child: { $ref: '#' } } }, /lead back/],
    [
      'two definitions that refer to each other',
      { $ref: '#/$defs/a', $defs: { a: { $ref: '#/$defs/b' }, b: { $ref: '#/$defs/a' } } },
      /lead back/,
    ],
    ['an external reference', { $ref: 'https://evil.example/schema.json' }, /inside its own/],
    ['a reference to a file', { $ref: 'file:///etc/passwd' }, /inside its own/],
    ['a dangling reference', { $ref: '#/$defs/none' }, /nothing/],
    ['a pattern with nested quantifiers', { type: 'string', pattern: '(a+)+$' }, /exponential/],
    ['a pattern that is no regular expression', { type: 'string', pattern: '(' }, /exponential|regular/],
    ['50,000 nested arrays', nested(50_000), /nodes/],
  ])('refuses %s', (_, schema, reason) => {
    expect(() => checkJsonSchema(schema, 'schema')).toThrow(reason);
  });
});
