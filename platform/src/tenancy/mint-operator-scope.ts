import { OperatorScope, operatorMint } from './operator-scope.ts';

/** Makes authority over every tenant. Only the operator's surfaces (`admin/`, `jobs/`, `cli/`, `app.ts`) may import this file. */
export function mintOperatorScope(actor: string): OperatorScope {
  return OperatorScope[operatorMint](actor);
}
