import { type RawBuilder, sql } from 'kysely';
import type { AttributeFilter, AttributeValue, ComparisonFilter } from '../../tenancy/attributes.ts';

/**
 * A filter as a condition over `attributes` (jsonb). Keys and values become bound parameters, never SQL text. Never NULL and never an
 * error, whatever the attributes hold; the meaning is that of `matchesFilter`.
 */
export function compileFilter(filter: AttributeFilter, attributes: RawBuilder<unknown>): RawBuilder<boolean> {
  switch (filter.type) {
    case 'and':
    case 'or': {
      const parts = filter.filters.map((part) => compileFilter(part, attributes));
      return sql`(${sql.join(parts, filter.type === 'and' ? sql` AND ` : sql` OR `)})`;
    }
    case 'eq':
    case 'in':
      return equalsAny(filter, attributes);
    case 'ne':
    case 'nin':
      return sql`(NOT ${equalsAny(filter, attributes)})`;
    default:
      return ordered(filter, attributes);
  }
}

function valueAt(key: string, attributes: RawBuilder<unknown>): RawBuilder<unknown> {
  return sql`(${attributes} -> ${key}::text)`;
}

/** Equality of jsonb is equality of type and value; numbers compare as numbers. */
function equalsAny({ key, value }: ComparisonFilter, attributes: RawBuilder<unknown>): RawBuilder<boolean> {
  const values: readonly AttributeValue[] = Array.isArray(value) ? value : [value];
  const literals = values.map((item) => sql`${JSON.stringify(item)}::jsonb`);
  return sql`coalesce(${valueAt(key, attributes)} IN (${sql.join(literals)}), false)`;
}

const operators = { gt: sql`>`, gte: sql`>=`, lt: sql`<`, lte: sql`<=` } as const;

function ordered({ type, key, value }: ComparisonFilter, attributes: RawBuilder<unknown>): RawBuilder<boolean> {
  const operator = operators[type as keyof typeof operators];
  const actual = valueAt(key, attributes);
  // CASE, not AND: PostgreSQL does not promise to evaluate AND from the left, and a cast before the type test would throw.
  if (typeof value === 'number') {
    return sql`(CASE WHEN jsonb_typeof(${actual}) = 'number' THEN (${actual} #>> '{}')::numeric ${operator} ${String(value)}::numeric ELSE false END)`;
  }
  return sql`(CASE WHEN jsonb_typeof(${actual}) = 'string' THEN (${actual} #>> '{}') COLLATE "C" ${operator} ${String(value)}::text ELSE false END)`;
}
