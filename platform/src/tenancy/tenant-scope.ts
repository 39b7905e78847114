/**
 * Stage 2: Principal -> TenantScope. After `auth/`, before everything that touches a tenant.
 *
 * The only door to tenant data. A scope belongs to one tenant, is frozen and nominal, and hands out capabilities that are
 * already bound: none of their methods takes a tenant. Cross-tenant work takes an `OperatorScope`, a different class, so
 * that searching for its name is the audit of who can see more than one tenant.
 */
import { assert } from '../primitives/assert.ts';
import type { TenantId } from '../primitives/ids.ts';
import type { TenantCapabilities } from './capabilities.ts';
import { Principal } from './principal.ts';
import { effectivePolicy, type Tenant, type TenantPolicy, type TierPolicy } from './tenant.ts';

const open: unique symbol = Symbol('open');

export class TenantScope implements TenantCapabilities {
  readonly #sealed = true;
  readonly principal: Principal;
  readonly tenant: Tenant;
  readonly policy: TenantPolicy;
  readonly files: TenantCapabilities['files'];
  readonly vectorStores: TenantCapabilities['vectorStores'];
  readonly responses: TenantCapabilities['responses'];
  readonly usage: TenantCapabilities['usage'];
  readonly idempotency: TenantCapabilities['idempotency'];

  private constructor(principal: Principal, tenant: Tenant, policy: TenantPolicy, capabilities: TenantCapabilities) {
    this.principal = principal;
    this.tenant = tenant;
    this.policy = policy;
    this.files = capabilities.files;
    this.vectorStores = capabilities.vectorStores;
    this.responses = capabilities.responses;
    this.usage = capabilities.usage;
    this.idempotency = capabilities.idempotency;
    Object.freeze(this);
  }

  get tenantId(): TenantId {
    return this.principal.tenantId;
  }

  static [open](principal: Principal, tenant: Tenant, policy: TenantPolicy, capabilities: TenantCapabilities): TenantScope {
    return new TenantScope(principal, tenant, policy, capabilities);
  }

  static is(value: unknown): value is TenantScope {
    return typeof value === 'object' && value !== null && #sealed in value;
  }
}

/** Binds tenant data to one verified identity. The database adapter implements it; it must read the tenant from the principal. */
export interface TenantDataSource {
  bind(principal: Principal): TenantCapabilities;
}

/** Opens the scope of the tenant that `principal` was verified for. Asserts that `tenant` is that tenant. */
export function openTenantScope(principal: Principal, tenant: Tenant, tier: TierPolicy, source: TenantDataSource): TenantScope {
  assert(Principal.is(principal), 'a scope needs a minted principal');
  assert(tenant.id === principal.tenantId, 'a scope opens only the tenant of its principal');
  return TenantScope[open](principal, tenant, effectivePolicy(tenant, tier), source.bind(principal));
}
