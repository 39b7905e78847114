import type { Random } from '../../primitives/random.ts';

/** Beyond this depth only what is required is made, and the simplest of the alternatives. */
const plainDepth = 4;
const depthMax = 24;
const valuesMax = 2_000;
const itemsMax = 256;
const charactersMax = 10_000;

export interface SchemaValueOptions {
  readonly random: Random;
  /** Text for a string the schema says nothing about but its name. */
  readonly text: (propertyName: string) => string;
}

type Schema = Readonly<Record<string, unknown>>;

/**
 * A value that satisfies a JSON Schema: types, enum, const, required, properties, items, prefixItems, lengths, ranges, formats, anyOf,
 * oneOf, allOf and local `$ref`. Not `pattern`, `not`, `if`, nor the "exactly one" of oneOf. Bounded: 2,000 values; a schema that needs
 * more, or that only infinite values satisfy, gets null where it is cut.
 */
export function valueForSchema(schema: unknown, options: SchemaValueOptions): unknown {
  return new SchemaWalk(schema, options).value(schema, { depth: 0, name: '', ordinal: 0 });
}

interface Place {
  readonly depth: number;
  /** Of the property that the value is for. */
  readonly name: string;
  /** Position in the list that the value is for; makes its neighbours differ. */
  readonly ordinal: number;
}

class SchemaWalk {
  readonly #root: unknown;
  readonly #options: SchemaValueOptions;
  #values = 0;

  constructor(root: unknown, options: SchemaValueOptions) {
    this.#root = root;
    this.#options = options;
  }

  value(schema: unknown, place: Place): unknown {
    if (++this.#values > valuesMax || place.depth > depthMax) return null;
    if (!isSchema(schema)) return schema === false ? null : this.#options.text(place.name);
    const flat = this.#flatten(schema, place.depth);
    if ('const' in flat) return flat['const'];
    const choices = flat['enum'];
    if (Array.isArray(choices) && choices.length > 0) return this.#pick(choices, place.ordinal);
    switch (typeOf(flat, place.depth)) {
      case 'object':
        return this.#object(flat, place);
      case 'array':
        return this.#array(flat, place);
      case 'number':
        return numberWithin(flat, place.ordinal, 0.5);
      case 'integer':
        return numberWithin(flat, place.ordinal, 1);
      case 'boolean':
        return this.#options.random.next() < 0.5;
      case 'null':
        return null;
      default:
        return stringWithin(flat, this.#options.text(place.name), place.ordinal);
    }
  }

  /** One schema without references and combinations: what they say is laid over each other. */
  #flatten(schema: Schema, depth: number): Schema {
    let flat = schema;
    for (let step = 0; step < 16; step++) {
      const { $ref, allOf, anyOf, oneOf, ...rest } = flat;
      const alternatives = Array.isArray(anyOf) ? anyOf : oneOf;
      const parts = [
        ...(typeof $ref === 'string' ? [this.#lookUp($ref)] : []),
        ...(Array.isArray(allOf) ? allOf : []),
        ...(Array.isArray(alternatives) ? [chooseAlternative(alternatives, depth)] : []),
      ];
      if (parts.length === 0) return flat;
      flat = parts.filter(isSchema).reduce(overlay, rest);
    }
    return {};
  }

  #lookUp(reference: string): unknown {
    if (!reference.startsWith('#')) return undefined;
    let found: unknown = this.#root;
    for (const part of reference.split('/').slice(1)) {
      const key = decodeURIComponent(part).replaceAll('~1', '/').replaceAll('~0', '~');
      if (typeof found !== 'object' || found === null || !Object.hasOwn(found, key)) return undefined;
      found = Reflect.get(found, key);
    }
    return found;
  }

  #pick(choices: readonly unknown[], ordinal: number): unknown {
    const start = Math.floor(this.#options.random.next() * choices.length);
    return choices[(ordinal === 0 ? start : ordinal) % choices.length];
  }

  #object(schema: Schema, place: Place): Schema {
    const properties = isSchema(schema['properties']) ? schema['properties'] : {};
    const required = Array.isArray(schema['required']) ? schema['required'].filter((name) => typeof name === 'string') : [];
    const names = place.depth < plainDepth ? [...Object.keys(properties), ...required] : required;
    const value: Record<string, unknown> = Object.create(null);
    for (const name of new Set(names)) {
      const property = Object.hasOwn(properties, name) ? properties[name] : schema['additionalProperties'];
      value[name] = this.value(property ?? true, { depth: place.depth + 1, name, ordinal: 0 });
    }
    return value;
  }

  #array(schema: Schema, place: Place): unknown[] {
    const prefix = Array.isArray(schema['prefixItems']) ? schema['prefixItems'] : [];
    const wanted = Math.max(place.depth < plainDepth ? 1 : 0, prefix.length, numberAt(schema, 'minItems') ?? 0);
    const length = Math.min(wanted, numberAt(schema, 'maxItems') ?? itemsMax, itemsMax);
    return Array.from({ length }, (_, ordinal) =>
      this.value(prefix[ordinal] ?? schema['items'] ?? true, { depth: place.depth + 1, name: place.name, ordinal }),
    );
  }
}

function isSchema(value: unknown): value is Schema {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function overlay(base: Schema, part: Schema): Schema {
  const properties = { ...asSchema(base['properties']), ...asSchema(part['properties']) };
  const required = [...asList(base['required']), ...asList(part['required'])];
  return {
    ...base,
    ...part,
    ...(Object.keys(properties).length > 0 && { properties }),
    ...(required.length > 0 && { required }),
  };
}

function asSchema(value: unknown): Schema {
  return isSchema(value) ? value : {};
}

function asList(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

/** The first near the top; further down the simplest, so that recursive schemas come to an end. */
function chooseAlternative(alternatives: readonly unknown[], depth: number): unknown {
  if (depth < plainDepth) return alternatives[0];
  const isSimple = (entry: unknown) => isSchema(entry) && !('$ref' in entry) && !['object', 'array'].includes(String(entry['type']));
  return alternatives.find(isSimple) ?? alternatives.at(-1);
}

function typeOf(schema: Schema, depth: number): unknown {
  const type = schema['type'];
  if (typeof type === 'string') return type;
  if (Array.isArray(type))
    return depth >= plainDepth && type.includes('null') ? 'null' : (type.find((entry) => entry !== 'null') ?? 'null');
  if ('properties' in schema || 'required' in schema) return 'object';
  if ('items' in schema || 'prefixItems' in schema) return 'array';
  return 'minimum' in schema || 'maximum' in schema || 'multipleOf' in schema ? 'number' : 'string';
}

function numberAt(schema: Schema, keyword: string): number | undefined {
  const value = schema[keyword];
  return typeof value === 'number' ? value : undefined;
}

/** `multipleOf` wins over `step`, the distance that keeps clear of an exclusive bound. */
function numberWithin(schema: Schema, ordinal: number, step: number): number {
  const multiple = numberAt(schema, 'multipleOf');
  const exclusiveLow = numberAt(schema, 'exclusiveMinimum');
  const exclusiveHigh = numberAt(schema, 'exclusiveMaximum');
  const unit = multiple ?? narrowed(step, exclusiveLow, exclusiveHigh);
  const low = Math.max(numberAt(schema, 'minimum') ?? -Infinity, exclusiveLow === undefined ? -Infinity : exclusiveLow + unit);
  const high = Math.min(numberAt(schema, 'maximum') ?? Infinity, exclusiveHigh === undefined ? Infinity : exclusiveHigh - unit);
  const start = Number.isFinite(low) ? low : Math.min(unit, high);
  const onGrid = step === 1 || multiple !== undefined ? Math.ceil(start / unit) * unit : start;
  const varied = onGrid + ordinal * unit;
  return varied <= high ? varied : Math.min(onGrid, high);
}

/** Both bounds exclusive and close together: a step that fits between them. */
function narrowed(step: number, low: number | undefined, high: number | undefined): number {
  if (step === 1 || low === undefined || high === undefined) return step;
  return Math.min(step, (high - low) / 2);
}

const formats: Readonly<Record<string, string>> = {
  'date-time': '2026-01-15T09:30:00Z',
  date: '2026-01-15',
  time: '09:30:00Z',
  duration: 'P1D',
  email: 'simulated@example.com',
  hostname: 'example.com',
  ipv4: '192.0.2.1',
  ipv6: '2001:db8::1',
  uri: 'https://example.com/simulated',
  uuid: '3f2b8c1e-5d6a-4f7b-8c9d-0e1f2a3b4c5d',
};

function stringWithin(schema: Schema, text: string, ordinal: number): string {
  const fixed = typeof schema['format'] === 'string' ? formats[schema['format']] : undefined;
  if (fixed !== undefined) return fixed;
  const varied = ordinal === 0 ? text : `${text} ${ordinal + 1}`;
  const shortest = Math.min(numberAt(schema, 'minLength') ?? 0, charactersMax);
  const longest = Math.min(numberAt(schema, 'maxLength') ?? charactersMax, charactersMax);
  // The end is kept, because it is what makes neighbours differ.
  const cut = varied.length > longest ? varied.slice(varied.length - longest) : varied;
  return cut.padStart(shortest, '.');
}
