/** File attributes in OpenAI's grammar: at most 16 keys of 64 characters, values string (512), finite number or boolean. */
export type AttributeValue = string | number | boolean;
export type Attributes = Readonly<Record<string, AttributeValue>>;

/** OpenAI's filter grammar for `file_search`: comparisons and `and`/`or` of them, at most 8 deep and 64 nodes. */
export type AttributeFilter = ComparisonFilter | CompoundFilter;

export interface ComparisonFilter {
  readonly type: 'eq' | 'ne' | 'gt' | 'gte' | 'lt' | 'lte' | 'in' | 'nin';
  readonly key: string;
  readonly value: AttributeValue | readonly AttributeValue[];
}

export interface CompoundFilter {
  readonly type: 'and' | 'or';
  readonly filters: readonly AttributeFilter[];
}
