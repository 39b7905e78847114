import { BulkheadError } from '../../errors/bulkhead-error.ts';

const retryAfterMs = 1_000;

/** SQLSTATE classes that mean: not now. 08 connection, 53 resources, 57 operator intervention, 55P03 lock, 40 rollback. */
const passing = /^(08|53|57|40|55P03)/;

/**
 * A driver's error as the rest of the program may see it: codes, never SQL text, DETAIL or values, because those can hold another row's
 * content. Our own errors pass through.
 */
export function databaseError(error: unknown): unknown {
  if (!(error instanceof Error) || error.name === 'BulkheadError' || error.name === 'AssertionError') return error;
  const code = (error as { readonly code?: unknown }).code;
  const state = typeof code === 'string' ? code : '';
  const isLost = /timeout|terminated|connection error|ECONN|ENOENT|EPIPE|closed/i.test(`${error.message} ${state}`);
  if (passing.test(state) || (isLost && state.length !== 5)) {
    return new BulkheadError('database_unavailable', 'The database is not available right now; try again.', { retryAfterMs });
  }
  if (state.length !== 5) return error;
  return new DatabaseStatementError(state, constraintOf(error));
}

/** A statement the database refused. A programmer's error unless the caller knows the constraint. */
export class DatabaseStatementError extends Error {
  readonly sqlState: string;
  readonly constraint: string | undefined;

  constructor(sqlState: string, constraint: string | undefined) {
    super(`the database refused a statement (SQLSTATE ${sqlState}${constraint === undefined ? '' : `, ${constraint}`})`);
    this.name = 'DatabaseStatementError';
    this.sqlState = sqlState;
    this.constraint = constraint;
  }
}

function constraintOf(error: Error): string | undefined {
  const name = (error as { readonly constraint?: unknown }).constraint;
  return typeof name === 'string' ? name : undefined;
}
