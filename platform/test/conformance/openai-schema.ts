/**
 * OpenAI's own description of its answers, as an oracle for ours. The schemas are in platform/data/openai (made by
 * scripts/trim-openai-schema.mjs) and compile when first asked for.
 * Known differences from the description, kept on purpose: every status from 400 up is held to `ErrorResponse`, the object the SDKs parse.
 */
import { readFileSync } from 'node:fs';
import { Ajv2020, type AnySchema, type ErrorObject, type ValidateFunction } from 'ajv/dist/2020.js';

type Schema = Readonly<Record<string, unknown>>;
type AnswerForm = 'json' | 'events';

interface SchemaFile {
  readonly origin: string;
  readonly routes: Readonly<Record<string, Readonly<Partial<Record<AnswerForm, string>>>>>;
  readonly schemas: Readonly<Record<string, Schema>>;
}

/** Says what is wrong with a value, one line per fault; empty when the value conforms. */
export interface SchemaCheck {
  readonly schemaName: string;
  violations(value: unknown): readonly string[];
}

const errorSchemaName = 'ErrorResponse';
const violationsMax = 20;
/** A stored response can be read as a stream (`?stream=true`), which the description tells in prose alone. */
const undescribedStreams: SchemaFile['routes'] = { 'GET /v1/responses/{response_id}': { events: 'ResponseStreamEvent' } };
/** What tells the branches of OpenAI's unions apart. */
const tags = ['type', 'object', 'role'];

let loaded: { readonly file: SchemaFile; readonly ajv: Ajv2020 } | undefined;

/** Throws an error that lists every fault, by path, when `value` does not conform to the named schema. */
export function expectValid(schemaName: string, value: unknown): void {
  const found = checkAgainst(schemaName).violations(value);
  if (found.length > 0) throw new Error(`not a valid ${schemaName}:\n  ${found.join('\n  ')}`);
}

export function checkAgainst(schemaName: string): SchemaCheck {
  const validate = compile(schemaName);
  return { schemaName, violations: (value) => (validate(value) ? [] : explain(schemaName, value, validate.errors ?? [])) };
}

/**
 * The check of a route's JSON answer: `validatorFor('POST /v1/chat/completions')`, `validatorFor('GET /v1/files/{file_id}', 404)`.
 * A concrete path (`GET /v1/files/file-1`) is matched to its template. Undefined when OpenAI names no schema for the answer.
 */
export function validatorFor(route: string, status = 200): SchemaCheck | undefined {
  if (status >= 400) return checkAgainst(errorSchemaName);
  const name = answersOf(route)?.json;
  return name === undefined ? undefined : checkAgainst(name);
}

/** The check of one decoded event of a route's stream. An event that carries an error is held to the error object. */
export function streamValidatorFor(route: string): SchemaCheck | undefined {
  const name = answersOf(route)?.events;
  if (name === undefined) return undefined;
  const branches = eventBranches(name);
  return {
    schemaName: name,
    violations: (event) => {
      const branch = branchFor(event, name, branches);
      return branch === undefined
        ? [`$.type names no event of this stream, got ${excerpt(event)}`]
        : checkAgainst(branch).violations(event);
    },
  };
}

/** Every route with a described answer, as `METHOD /v1/template`. */
export function describedRoutes(): readonly string[] {
  return Object.keys(load().file.routes);
}

export function eventTypesOf(route: string): readonly string[] {
  const name = answersOf(route)?.events;
  return name === undefined ? [] : [...eventBranches(name).keys()];
}

function load() {
  if (loaded) return loaded;
  const file = JSON.parse(readFileSync(new URL('../../data/openai/schemas.json', import.meta.url), 'utf8')) as SchemaFile;
  const formats = {
    unixtime: { type: 'number' as const, validate: (seconds: number) => Number.isInteger(seconds) && seconds >= 0 && seconds < 1e11 },
    uri: (text: string) => URL.canParse(text),
    date: /^\d{4}-\d{2}-\d{2}$/,
    float: true as const,
  };
  const ajv = new Ajv2020({ strict: false, allErrors: true, inlineRefs: false, formats });
  ajv.addSchema({ components: { schemas: file.schemas } }, 'openai');
  loaded = { file, ajv };
  return loaded;
}

function compile(schemaName: string): ValidateFunction {
  const validate = load().ajv.getSchema(`openai#/components/schemas/${schemaName}`);
  if (!validate) throw new Error(`no OpenAI schema is called ${schemaName}`);
  return validate;
}

function answersOf(route: string) {
  const { routes } = load().file;
  const template = route in routes ? route : Object.keys(routes).find((candidate) => matchesTemplate(candidate, route));
  return template === undefined ? undefined : { ...routes[template], ...undescribedStreams[template] };
}

function matchesTemplate(template: string, route: string): boolean {
  const wanted = template.split('/');
  const given = route.split('/');
  return (
    wanted.length === given.length && wanted.every((part, index) => part === given[index] || (part.startsWith('{') && given[index] !== ''))
  );
}

/** Event type -> schema, for unions told apart by `type`; empty for a stream of one kind of chunk. */
function eventBranches(name: string): ReadonlyMap<string, string> {
  const { schemas } = load().file;
  const branches = new Map<string, string>();
  for (const branch of asSchemas(schemas[name]?.['anyOf'])) {
    const branchName = nameOfRef(branch['$ref']);
    const type = branchName === undefined ? undefined : allowedValues(property(schemas[branchName], 'type'))?.[0];
    if (branchName !== undefined && typeof type === 'string') branches.set(type, branchName);
  }
  return branches;
}

function branchFor(event: unknown, name: string, branches: ReadonlyMap<string, string>): string | undefined {
  if (branches.size > 0) return isRecord(event) ? branches.get(String(event['type'])) : undefined;
  return isRecord(event) && event['error'] !== undefined ? errorSchemaName : name;
}

/** Names the faults of the branch the value was meant to be, not of every branch it could have been. */
function explain(schemaName: string, value: unknown, errors: readonly ErrorObject[]): readonly string[] {
  const { ajv, file } = load();
  const narrowed: AnySchema = { ...narrow(file.schemas[schemaName] ?? {}, value), components: { schemas: file.schemas } };
  const validate = ajv.compile(narrowed);
  const closest = validate(value) ? errors : (validate.errors ?? errors);
  ajv.removeSchema(narrowed);
  const lines = new Set(closest.map((error) => describe(error, value)));
  return [...lines].slice(0, violationsMax);
}

/** The same schema with every union along `value` replaced by its closest branch. Depth is bounded by the value's. */
function narrow(schema: Schema, value: unknown): Schema {
  const target = follow(schema);
  const narrowed: Record<string, unknown> = { ...target };
  const all = asSchemas(target['allOf']).map((part) => narrow(part, value));
  const union = asSchemas(target['anyOf'] ?? target['oneOf']);
  if (union.length > 0) {
    delete narrowed['anyOf'];
    delete narrowed['oneOf'];
    all.push(narrow(closestBranch(union, value), value));
  }
  if (all.length > 0) narrowed['allOf'] = all;
  if (isRecord(value) && isRecord(target['properties'])) {
    narrowed['properties'] = narrowProperties(target['properties'], value);
  }
  if (Array.isArray(value) && isRecord(target['items'])) {
    const items = target['items'];
    delete narrowed['items'];
    if (value.length > 0) narrowed['prefixItems'] = value.map((item) => narrow(items, item));
  }
  return narrowed;
}

function narrowProperties(properties: Schema, value: Readonly<Record<string, unknown>>): Schema {
  const entries = Object.entries(properties).map(([key, part]) => [key, isRecord(part) && key in value ? narrow(part, value[key]) : part]);
  return Object.fromEntries(entries);
}

function closestBranch(union: readonly Schema[], value: unknown): Schema {
  const scored = union.map((branch) => ({ branch, score: likeness(follow(branch), value) }));
  scored.sort((left, right) => right.score - left.score);
  return scored[0]?.branch ?? {};
}

/** Higher is closer: the right JSON type first, then matching tags, then as few missing keys as can be. */
function likeness(branch: Schema, value: unknown): number {
  const inner = asSchemas(branch['anyOf'] ?? branch['oneOf']);
  if (inner.length > 0) return Math.max(...inner.map((part) => likeness(follow(part), value)));
  const types = [branch['type'] ?? (branch['properties'] ? 'object' : undefined)].flat();
  if (types[0] !== undefined && !types.includes(jsonType(value))) return -1_000;
  if (!isRecord(value)) return allowedValues(branch)?.includes(value) === false ? -1 : 0;
  let score = 0;
  for (const tag of tags) {
    const allowed = allowedValues(property(branch, tag));
    if (allowed && tag in value) score += allowed.includes(value[tag]) ? 100 : -100;
  }
  const required = Array.isArray(branch['required']) ? branch['required'] : [];
  return score - required.filter((key) => !(String(key) in value)).length;
}

function describe(error: ErrorObject, value: unknown): string {
  const path = `$${error.instancePath.replaceAll('/', '.')}`;
  const allowed: unknown = error.params['allowedValues'];
  const expected = Array.isArray(allowed) ? ` (${allowed.map((item) => JSON.stringify(item)).join(', ')})` : '';
  const seen = error.keyword === 'required' ? '' : `, got ${excerpt(valueAt(value, error.instancePath))}`;
  return `${path} ${error.message ?? error.keyword}${expected}${seen}`;
}

function valueAt(value: unknown, pointer: string): unknown {
  const keys = pointer.split('/').slice(1);
  return keys.reduce<unknown>((inner, key) => (isRecord(inner) || Array.isArray(inner) ? Reflect.get(inner, key) : undefined), value);
}

function excerpt(value: unknown): string {
  const text = JSON.stringify(value) ?? 'undefined';
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}

function follow(schema: Schema): Schema {
  const name = nameOfRef(schema['$ref']);
  return name === undefined ? schema : follow(load().file.schemas[name] ?? {});
}

function nameOfRef(reference: unknown): string | undefined {
  return typeof reference === 'string' ? reference.slice('#/components/schemas/'.length) : undefined;
}

function property(schema: Schema | undefined, key: string): Schema | undefined {
  const properties = schema?.['properties'];
  const found = isRecord(properties) ? properties[key] : undefined;
  return isRecord(found) ? follow(found) : undefined;
}

function allowedValues(schema: Schema | undefined): readonly unknown[] | undefined {
  if (schema && 'const' in schema) return [schema['const']];
  const values = schema?.['enum'];
  return Array.isArray(values) ? values : undefined;
}

function asSchemas(value: unknown): readonly Schema[] {
  return Array.isArray(value) ? value.filter(isRecord) : [];
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function jsonType(value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'array';
  if (typeof value === 'number') return Number.isInteger(value) ? 'integer' : 'number';
  return typeof value;
}
