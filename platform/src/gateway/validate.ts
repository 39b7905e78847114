/** Bodies and page queries against their schemas; the first fault becomes an error that names the field. */
import type { z } from 'zod';
import { BulkheadError, quoteInput } from '../errors/bulkhead-error.ts';
import type { PageRequest } from '../tenancy/capabilities.ts';
import type { JsonObject } from './exchange.ts';
import { dotted } from './json-fault.ts';

/**
 * The parsed body. Throws `missing_required_parameter`, `unknown_parameter` (strict schemas) or `invalid_value`, each with the dotted
 * path in `param`. The first issue is reported; of a union, the one of the branch that came furthest.
 */
export function validateBody<Schema extends z.ZodType>(schema: Schema, body: JsonObject): z.output<Schema> {
  const result = schema.safeParse(body);
  if (result.success) return result.data;
  const [first] = result.error.issues;
  throw first === undefined ? new BulkheadError('invalid_value', 'the body is invalid') : errorOf(first, body);
}

/** 404 for a thing of this tenant; another tenant's thing must come here too. `kind` is a constant such as `vector store`. */
export function notFound(kind: string, id: string): BulkheadError {
  return new BulkheadError('not_found', `there is no ${kind} ${quoteInput(id)}`);
}

export interface PageLimits {
  readonly limitMax?: number;
  readonly limitDefault?: number;
}

/**
 * `limit` (1 to `limitMax`, default 20 of 100), `order`, `after` and `before` of a list query. Throws `invalid_value`, and
 * `invalid_cursor` for a cursor that no list of ours can have given out. Unknown query parameters are ignored, as OpenAI does.
 */
export function pageRequestOf(query: URLSearchParams, { limitMax = 100, limitDefault = 20 }: PageLimits = {}): PageRequest {
  return {
    limit: limitOf(query.get('limit'), limitMax, limitDefault),
    order: orderOf(query.get('order')),
    after: cursorOf(query, 'after'),
    before: cursorOf(query, 'before'),
  };
}

function limitOf(text: string | null, limitMax: number, limitDefault: number): number {
  if (text === null) return limitDefault;
  const limit = /^\d{1,6}$/.test(text) ? Number(text) : 0;
  if (limit < 1 || limit > limitMax) throw new BulkheadError('invalid_value', `limit must be 1 to ${limitMax}`, { param: 'limit' });
  return limit;
}

function orderOf(text: string | null): 'asc' | 'desc' {
  if (text === null) return 'desc';
  if (text !== 'asc' && text !== 'desc') throw new BulkheadError('invalid_value', 'order must be asc or desc', { param: 'order' });
  return text;
}

/** Cursors are ids of the list's own items; anything else was not given out by us. */
const cursorPattern = /^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$/;

function cursorOf(query: URLSearchParams, name: 'after' | 'before'): string | undefined {
  const text = query.get(name);
  // Some clients send an empty cursor for the first page.
  if (text === null || text === '') return undefined;
  if (!cursorPattern.test(text)) throw new BulkheadError('invalid_cursor', `${name} is no cursor of this list`, { param: name });
  return text;
}

type Issue = z.core.$ZodIssue;
type Path = readonly PropertyKey[];

function errorOf(issue: Issue, body: JsonObject, parents: Path = []): BulkheadError {
  const path = [...parents, ...issue.path];
  if (issue.code === 'unrecognized_keys') {
    const key = issue.keys[0] ?? '';
    return new BulkheadError('unknown_parameter', `there is no parameter ${quoteInput(key)} here`, { param: paramOf([...path, key]) });
  }
  if (issue.code === 'invalid_union' && valueAt(body, path) !== undefined) {
    const branch = bestBranch(issue.errors);
    if (branch !== undefined) return errorOf(branch, body, path);
  }
  const param = paramOf(path);
  if (path.length > 0 && valueAt(body, path) === undefined) {
    return new BulkheadError('missing_required_parameter', `${param} is required`, { param });
  }
  return new BulkheadError('invalid_value', messageOf(issue), path.length === 0 ? {} : { param });
}

/** The type that fits but breaks a rule says more than the type that does not fit at all. */
function bestBranch(branches: readonly (readonly Issue[])[]): Issue | undefined {
  const firsts = branches.flatMap((issues) => (issues[0] === undefined ? [] : [issues[0]]));
  return firsts.find((issue) => issue.path.length > 0 || issue.code !== 'invalid_type') ?? firsts[0];
}

/** Zod's own texts name types, bounds and allowed values, never the input; keys of the input are left out. */
function messageOf(issue: Issue): string {
  return issue.code === 'invalid_key' ? 'a key is invalid' : issue.message;
}

function valueAt(body: unknown, path: Path): unknown {
  let value = body;
  for (const segment of path) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, segment)) return undefined;
    value = Reflect.get(value, segment);
  }
  return value;
}

function paramOf(path: Path): string {
  return dotted(path.map((segment) => (typeof segment === 'symbol' ? '' : segment)));
}
