/**
 * Authority over more than one tenant: the admin API, the ledger and the rollups. Never derived from a tenant credential.
 * `mintOperatorScope` is importable only from `admin/`, `jobs/`, `cli/` and `app.ts` (the boundary check enforces it).
 */
/** The key to the constructor; reached only through `mint-operator-scope.ts`. */
export const operatorMint: unique symbol = Symbol('mint operator scope');

export class OperatorScope {
  readonly #sealed = true;
  /** Who acts, for the audit trail: `admin-token`, `job:ledger`, `cli`. */
  readonly actor: string;

  private constructor(actor: string) {
    this.actor = actor;
    Object.freeze(this);
  }

  static [operatorMint](actor: string): OperatorScope {
    return new OperatorScope(actor);
  }

  static is(value: unknown): value is OperatorScope {
    return typeof value === 'object' && value !== null && #sealed in value;
  }
}
