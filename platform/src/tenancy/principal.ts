import type { TenantId } from '../primitives/ids.ts';
import type { ScopePolicy } from './tenant.ts';

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
  /** A part of the tenant with limits of its own, as the key or a claim of the token names it. */
  readonly team?: string | undefined;
  /** What the key itself may use, beside the limits of the tenant. */
  readonly keyPolicy?: ScopePolicy | undefined;
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
  readonly team: string | undefined;
  readonly keyPolicy: ScopePolicy | undefined;

  private constructor(facts: PrincipalFacts) {
    this.tenantId = facts.tenantId;
    this.kind = facts.kind;
    this.user = facts.user;
    this.keyId = facts.keyId;
    this.tier = facts.tier;
    this.team = facts.team;
    this.keyPolicy = facts.keyPolicy;
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
