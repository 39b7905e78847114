/**
 * Which issuers are believed, and for whom they speak. Filled once at start from the configuration; a token chooses its entry by the exact
 * text of `iss` and can change nothing in it.
 */
import type { IssuerConfig } from '../config/schema.ts';
import { assert } from '../primitives/assert.ts';
import type { Clock } from '../primitives/clock.ts';
import { parseTenantId, type TenantId } from '../primitives/ids.ts';
import type { Logger } from '../telemetry/logger.ts';
import { type KeySource, openJwks, openKeyFile, type SignatureAlgorithm } from './jwks-source.ts';

export interface TrustedIssuer {
  /** Compared exactly. */
  readonly issuer: string;
  readonly audience: string;
  readonly algorithms: readonly SignatureAlgorithm[];
  /** What `typ` must be (RFC 9068: `at+jwt`), so that an id token is no access token. */
  readonly tokenType: string;
  readonly maxTokenAgeSeconds: number;
  readonly keys: KeySource;
  readonly speaksFor: IssuerAuthority;
  readonly claims: { readonly tenant: string; readonly tier: string; readonly user: string; readonly team?: string | undefined };
}

/** `platform`: its tokens name their tenant in a claim. `tenant`: it speaks for one tenant, whatever its tokens claim. */
export type IssuerAuthority = { readonly kind: 'platform' } | { readonly kind: 'tenant'; readonly tenantId: TenantId };

export type IssuerRegistry = ReadonlyMap<string, TrustedIssuer>;

/** Throws when two entries have the same name: which of them a token would get must not depend on their order. */
export function createIssuerRegistry(issuers: readonly TrustedIssuer[]): IssuerRegistry {
  const registry = new Map<string, TrustedIssuer>();
  for (const issuer of issuers) {
    if (registry.has(issuer.issuer)) throw new Error(`the issuer ${JSON.stringify(issuer.issuer)} is configured twice`);
    registry.set(issuer.issuer, issuer);
  }
  return registry;
}

/** One configured issuer with its keys. A key file is read now; a JWKS is fetched when the first token needs it. Throws what would refuse every token. */
export function openIssuer(config: IssuerConfig, parts: { readonly clock: Clock; readonly logger: Logger }): TrustedIssuer {
  const { issuer, algorithms, audience, claims, tokenType, maxTokenAgeSeconds } = config;
  return {
    issuer,
    audience,
    algorithms,
    claims,
    tokenType,
    maxTokenAgeSeconds,
    keys: keysOf(config, parts),
    speaksFor: authorityOf(config),
  };
}

/** An issuer with a tenant that cannot be read must not become one that speaks for all. */
function authorityOf(config: IssuerConfig): IssuerAuthority {
  if (config.tenant === undefined) {
    assert(config.kind === 'platform', 'the configuration says for whom an issuer speaks');
    return { kind: 'platform' };
  }
  const tenantId = parseTenantId(config.tenant);
  assert(tenantId !== undefined && config.kind === undefined, 'the configuration checked the tenant of an issuer');
  return { kind: 'tenant', tenantId };
}

function keysOf(config: IssuerConfig, { clock, logger }: { readonly clock: Clock; readonly logger: Logger }): KeySource {
  if (config.publicKeyFile !== undefined) return openKeyFile(config.publicKeyFile, config.algorithms);
  assert(config.jwksUri !== undefined, 'the configuration names the keys of an issuer');
  const { issuer } = config;
  return openJwks(config.jwksUri, {
    clock,
    onFailure: (reason) => logger.warn({ component: 'jwks', reason }, `the keys of the issuer ${issuer} cannot be fetched`),
  });
}
