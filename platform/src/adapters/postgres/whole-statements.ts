/**
 * The embedded engine runs all connections in one session, message by message. A statement with parameters is several messages, and outside a transaction
 * those of another connection may come between them: its BEGIN once joined the statement's own implicit transaction, whose end then was nobody's, and every
 * connection waited until its time was up (SQLSTATE 26000 and 25001). Inside a transaction the engine listens to that connection alone.
 */
import type pg from 'pg';
import { assert } from '../../primitives/assert.ts';

/** From now on a statement with parameters that this connection sends outside a transaction is sent in one of its own. */
export function sendWhole(client: pg.PoolClient): void {
  const send: unknown = Reflect.get(client, 'query');
  assert(typeof send === 'function', 'a connection can be asked');
  const run = (sent: readonly unknown[]): unknown => Reflect.apply(send, client, [...sent]);
  const value = (...sent: readonly unknown[]): unknown =>
    hasParameters(sent) && client.getTransactionStatus() === 'I' ? inTransaction(run, sent) : run(sent);
  Object.defineProperty(client, 'query', { value });
}

async function inTransaction(run: (sent: readonly unknown[]) => unknown, sent: readonly unknown[]): Promise<unknown> {
  await run(['BEGIN']);
  try {
    const result = await run(sent);
    await run(['COMMIT']);
    return result;
  } catch (error) {
    await run(['ROLLBACK']);
    throw error;
  }
}

function hasParameters([statement, values]: readonly unknown[]): boolean {
  const own = typeof statement === 'object' && statement !== null && 'values' in statement ? statement.values : undefined;
  return [values, own].some((list) => Array.isArray(list) && list.length > 0);
}
