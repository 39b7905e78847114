import type { TenantId } from '../primitives/ids.ts';

/** What a verified credential says. Produced by `auth/`, and for background work by a signed job envelope. */
export interface PrincipalFacts {
  readonly tenantId: TenantId;
  readonly kind: 'api-key' | 'jwt' | 'job';
  /** Who acts inside the tenant: the token's `sub`, or the key's id. The second level of the fair queue. */
  readonly user: string;
  /** The API key's public id, or for a token the issuer; names the key in limits and usage. */
  readonly keyId: string;
  /** A platform issuer may name the tier in a claim; it wins over the tenant's stored tier. */
  readonly tier?: string | undefined;
  /** Limits of the key itself, beside those of the tenant. */
  readonly keyLimits?:
    | {
        readonly requestsPerMinute?: number | undefined;
        readonly tokensPerMinute?: number | undefined;
        readonly concurrency?: number | undefined;
      }
    | undefined;
}

/** The key to the constructor; reached only through `mint-principal.ts`. */
export const principalMint: unique symbol = Symbol('mint principal');

/**
 * A verified identity bound to exactly one tenant. Nominal and frozen: an object literal is not one, and the constructor
 * is private. `mintPrincipal` is importable only from `auth/` and `jobs/` (the boundary check enforces it).
 */
export class Principal {
  readonly #sealed = true;
  readonly tenantId: TenantId;
  readonly kind: PrincipalFacts['kind'];
  readonly user: string;
  readonly keyId: string;
  readonly tier: string | undefined;
  readonly keyLimits: PrincipalFacts['keyLimits'];

  private constructor(facts: PrincipalFacts) {
    this.tenantId = facts.tenantId;
    this.kind = facts.kind;
    this.user = facts.user;
    this.keyId = facts.keyId;
    this.tier = facts.tier;
    this.keyLimits = facts.keyLimits;
    Object.freeze(this);
  }

  static [principalMint](facts: PrincipalFacts): Principal {
    return new Principal(facts);
  }

  /** True only for objects made by this class; a structural copy fails. */
  static is(value: unknown): value is Principal {
    return typeof value === 'object' && value !== null && #sealed in value;
  }
}
