import { BulkheadError } from '../errors/bulkhead-error.ts';
import type { Exchange } from './exchange.ts';

/** The conversation or the run of an agent that a request belongs to, as its client names it. Throws `invalid_value`. */
export function sessionIdOf({ headers }: Exchange): string | undefined {
  const value = headers['x-session-id'];
  if (value === undefined) return undefined;
  if (typeof value === 'string' && /^[\x21-\x7e]{1,128}$/.test(value)) return value;
  throw new BulkheadError('invalid_value', 'x-session-id must be 1 to 128 visible ASCII characters', { param: 'x-session-id' });
}
