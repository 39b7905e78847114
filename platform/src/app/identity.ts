/** Who may call: issuers, keys, the cache of verified credentials and the follower that keeps it honest. */

import type { ApiKeyIssuer } from '../admin/tenant-routes.ts';
import { hasAdminToken } from '../auth/admin-token.ts';
import { issueApiKey, type Peppers } from '../auth/api-key.ts';
import { type Authenticator, createAuthenticator } from '../auth/authenticate.ts';
import { openDevelopmentIssuer } from '../auth/dev-issuer.ts';
import { DirectoryCache } from '../auth/directory-cache.ts';
import { type DirectoryFollower, followDirectory } from '../auth/directory-follower.ts';
import { createIssuerRegistry, openIssuer, type TrustedIssuer } from '../auth/issuer-registry.ts';
import type { LoadedConfig } from '../config/load.ts';
import type { Config, TierConfig } from '../config/schema.ts';
import type { EdgeAuthentication } from '../gateway/serve-exchange.ts';
import type { Clock } from '../primitives/clock.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { BudgetPolicy, ScopePolicy, TierPolicy } from '../tenancy/tenant.ts';
import type { DirectoryChange, TenantDirectory } from '../tenancy/tenant-directory.ts';
import type { TenantDataSource } from '../tenancy/tenant-scope.ts';
import type { Secrets } from './secrets.ts';

export interface IdentityParts {
  readonly loaded: LoadedConfig;
  readonly directory: TenantDirectory;
  readonly data: TenantDataSource;
  readonly secrets: Secrets;
  /** Issuers beside the configured ones. */
  readonly issuers: readonly TrustedIssuer[];
  readonly clock: Clock;
  readonly logger: Logger;
}

export class Identity implements AsyncDisposable {
  readonly apiKeys: ApiKeyIssuer;
  readonly #authenticator: Authenticator;
  readonly #follower: DirectoryFollower;
  readonly #listeners: Set<(change: DirectoryChange) => void>;

  constructor(authenticator: Authenticator, follower: DirectoryFollower, parts: IdentityState) {
    const { peppers, listeners } = parts;
    this.#authenticator = authenticator;
    this.#follower = follower;
    this.#listeners = listeners;
    this.apiKeys = { issue: (key) => issueApiKey(peppers, key) };
  }

  edge(adminToken: string): EdgeAuthentication {
    return {
      tenant: (carrier) => this.#authenticator.authenticate(carrier),
      operator: (headers) => hasAdminToken(headers, adminToken),
    };
  }

  /** Called with each change, when new calls are already judged by it. */
  onChange(listener: (change: DirectoryChange) => void): void {
    this.#listeners.add(listener);
  }

  /** This process changed the directory: its own cache must not wait for the next poll. */
  directoryChanged(): Promise<void> {
    return this.#follower.catchUp();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#follower.close();
  }
}

interface IdentityState {
  readonly peppers: Peppers;
  readonly listeners: Set<(change: DirectoryChange) => void>;
}

export async function openIdentity({ loaded, directory, data, secrets, issuers: more, clock, logger }: IdentityParts): Promise<Identity> {
  const { config, demo } = loaded;
  const peppers: Peppers = { current: 1, byVersion: new Map([[1, secrets.apiKeyPepper]]) };
  const issuers = config.auth.issuers.map((issuer) => openIssuer(issuer, { clock, logger }));
  if (demo) issuers.push((await openDevelopmentIssuer(config.dataDir)).trust);
  issuers.push(...more);
  const known = new DirectoryCache(directory, { entriesMax: config.bounds.credentialCacheEntriesMax, clock });
  const authenticator = createAuthenticator({
    directory: known,
    issuers: createIssuerRegistry(issuers),
    peppers,
    tiers: tiersOf(config),
    data,
    clock,
    cacheEntriesMax: config.bounds.credentialCacheEntriesMax,
    verificationsMax: config.bounds.credentialVerificationsMax,
    keyEnvironments: new Set(['live', 'test']),
  });
  const listeners: IdentityState['listeners'] = new Set();
  const follower = await followDirectory({
    directory,
    // The records first: a credential that is verified again must not find the old ones.
    onChange: (change) => {
      known.apply(change);
      authenticator.apply(change);
      for (const listener of listeners) listener(change);
    },
    onLost: () => {
      known.forgetAll();
      authenticator.forgetAll();
    },
    clock,
    logger,
  });
  return new Identity(authenticator, follower, { peppers, listeners });
}

/** The configured tiers with their names. */
export function tiersOf(config: Config): ReadonlyMap<string, TierPolicy> {
  return new Map(Object.entries(config.tiers).map(([name, tier]) => [name, tierOf(name, tier)]));
}

function tierOf(name: string, { weight, limits, budget, models, perTeam, perUser, perSession }: TierConfig): TierPolicy {
  const { usdMax, ...session } = perSession;
  return {
    name,
    weight,
    limits,
    budget: budget && budgetOf(budget),
    models,
    perTeam: scopePolicyOf(perTeam),
    perUser: scopePolicyOf(perUser),
    perSession: { ...session, costMaxNanoUsd: usdMax && Math.round(usdMax * 1e9) },
  };
}

function scopePolicyOf(policy: TierConfig['perTeam']): ScopePolicy | undefined {
  return policy && { limits: policy.limits, budget: policy.budget && budgetOf(policy.budget) };
}

function budgetOf({ usd, period, onExhausted }: NonNullable<TierConfig['budget']>): BudgetPolicy {
  return { limitNanoUsd: Math.round(usd * 1e9), period, isHard: onExhausted === 'refuse' };
}
