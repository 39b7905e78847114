/**
 * OpenAI's attribute filters: parsed and bounded here, evaluated by the database (the adapter compiles them to bound parameters).
 * What OpenAI leaves open is fixed so: a missing key makes `ne` and `nin` true and everything else false; so does another type;
 * strings are ordered by code point; booleans have no order.
 */
import { BulkheadError, quoteInput } from '../errors/bulkhead-error.ts';
import type { AttributeFilter, Attributes, AttributeValue, ComparisonFilter } from '../tenancy/attributes.ts';

export const filterDepthMax = 8;
export const filterNodesMax = 64;
export const filterValuesMax = 100;
const keyCharactersMax = 64;
const stringCharactersMax = 512;

/** Reads a filter from request input. Throws `invalid_filter`, whose `param` is the dotted path of what is wrong below `param`. */
export function parseAttributeFilter(input: unknown, param: string): AttributeFilter {
  return parseNode(input, { param, depth: 1, nodes: { count: 0 } });
}

/** Whether a file with these attributes passes: the meaning of a filter, in its plainest form. */
export function matchesFilter(filter: AttributeFilter, attributes: Attributes): boolean {
  switch (filter.type) {
    case 'and':
      return filter.filters.every((part) => matchesFilter(part, attributes));
    case 'or':
      return filter.filters.some((part) => matchesFilter(part, attributes));
    default:
      return matchesComparison(filter, Object.hasOwn(attributes, filter.key) ? attributes[filter.key] : undefined);
  }
}

interface Place {
  readonly param: string;
  readonly depth: number;
  readonly nodes: { count: number };
}

function parseNode(input: unknown, place: Place): AttributeFilter {
  if (place.depth > filterDepthMax) throw invalid(place.param, `a filter nests at most ${filterDepthMax} deep`);
  if (++place.nodes.count > filterNodesMax) throw invalid(place.param, `a filter has at most ${filterNodesMax} parts`);
  if (!isRecord(input)) throw invalid(place.param, 'a filter is an object');
  const { type } = input;
  if (type === 'and' || type === 'or') return parseCompound(input, type, place);
  if (isComparison(type)) return parseComparison(input, type, place);
  throw invalid(`${place.param}.type`, 'the type is one of eq, ne, gt, gte, lt, lte, in, nin, and, or');
}

function parseCompound(input: Readonly<Record<string, unknown>>, type: 'and' | 'or', place: Place): AttributeFilter {
  assertKeys(input, ['type', 'filters'], place.param);
  const { filters } = input;
  if (!Array.isArray(filters) || filters.length === 0) throw invalid(`${place.param}.filters`, `${type} takes a list of filters`);
  const parsed = filters.map((filter, index) =>
    parseNode(filter, { param: `${place.param}.filters.${index}`, depth: place.depth + 1, nodes: place.nodes }),
  );
  return { type, filters: parsed };
}

function parseComparison(input: Readonly<Record<string, unknown>>, type: ComparisonFilter['type'], place: Place): AttributeFilter {
  assertKeys(input, ['type', 'key', 'value'], place.param);
  const { key, value } = input;
  if (typeof key !== 'string' || key.length === 0 || key.length > keyCharactersMax || !isCleanText(key)) {
    throw invalid(`${place.param}.key`, `a key is text of 1 to ${keyCharactersMax} characters`);
  }
  const valueParam = `${place.param}.value`;
  if (type === 'in' || type === 'nin') {
    if (!Array.isArray(value) || value.length === 0 || value.length > filterValuesMax) {
      throw invalid(valueParam, `${type} takes a list of 1 to ${filterValuesMax} values`);
    }
    return { type, key, value: value.map((item, index) => parseValue(item, `${valueParam}.${index}`)) };
  }
  const parsed = parseValue(value, valueParam);
  if (typeof parsed === 'boolean' && type !== 'eq' && type !== 'ne') throw invalid(valueParam, 'true and false have no order');
  return { type, key, value: parsed };
}

function parseValue(value: unknown, param: string): AttributeValue {
  if (typeof value === 'boolean') return value;
  if (typeof value === 'number' && Number.isFinite(value)) return value;
  if (typeof value === 'string' && value.length <= stringCharactersMax && isCleanText(value)) return value;
  throw invalid(param, `a value is text of at most ${stringCharactersMax} characters, a finite number, true or false`);
}

const comparisons = new Set(['eq', 'ne', 'gt', 'gte', 'lt', 'lte', 'in', 'nin']);

function isComparison(type: unknown): type is ComparisonFilter['type'] {
  return typeof type === 'string' && comparisons.has(type);
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** PostgreSQL's text holds neither NUL nor half a surrogate pair. */
function isCleanText(text: string): boolean {
  return text.isWellFormed() && !text.includes('\u0000');
}

function assertKeys(input: Readonly<Record<string, unknown>>, allowed: readonly string[], param: string): void {
  const foreign = Object.keys(input).find((key) => !allowed.includes(key));
  if (foreign !== undefined) throw invalid(param, `a filter has no field ${quoteInput(foreign)}`);
}

function invalid(param: string, message: string): BulkheadError {
  return new BulkheadError('invalid_filter', message, { param });
}

function matchesComparison(filter: ComparisonFilter, actual: AttributeValue | undefined): boolean {
  const { value } = filter;
  switch (filter.type) {
    case 'eq':
      return actual === value;
    case 'ne':
      return actual !== value;
    case 'in':
      return Array.isArray(value) && value.includes(actual);
    case 'nin':
      return !(Array.isArray(value) && value.includes(actual));
    default:
      return isOrdered(filter.type, actual, value);
  }
}

function isOrdered(type: 'gt' | 'gte' | 'lt' | 'lte', actual: unknown, expected: unknown): boolean {
  const order = compare(actual, expected);
  if (order === undefined) return false;
  switch (type) {
    case 'gt':
      return order > 0;
    case 'gte':
      return order >= 0;
    case 'lt':
      return order < 0;
    default:
      return order <= 0;
  }
}

function compare(left: unknown, right: unknown): number | undefined {
  if (typeof left === 'number' && typeof right === 'number') return left - right;
  if (typeof left === 'string' && typeof right === 'string') return Buffer.compare(Buffer.from(left), Buffer.from(right));
  return undefined;
}
