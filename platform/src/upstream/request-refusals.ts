import { BulkheadError } from '../errors/bulkhead-error.ts';

/** A refusal of something that a provider's dialect cannot say: 400, and it names the parameter. */
export function unsupported(param: string, what: string): BulkheadError {
  return new BulkheadError('unsupported_parameter', `The provider of this model does not support ${what}.`, { param });
}

export function invalid(param: string, rule: string): BulkheadError {
  return new BulkheadError('invalid_value', `${param} ${rule}`, { param });
}
