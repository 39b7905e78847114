/** Names under a tenant's secret salt, so that what a provider keeps for one of our tenants tells no other about it. */
import { createHash } from 'node:crypto';
import type { ProviderCall } from '../inference/provider.ts';

/**
 * For the beginning of the prompt, where a provider keeps prompts for the whole account and finds them by their beginning: then none of a tenant's is the
 * beginning of another's. The caller's own `prompt_cache_key` divides the tenant's further. Undefined without a salt.
 */
export function cachePartitionOf({ body, cacheSalt }: ProviderCall): string | undefined {
  if (cacheSalt === undefined) return undefined;
  const own = body['prompt_cache_key'];
  const partition = digest([cacheSalt, 'cache', typeof own === 'string' ? own : null]).slice(0, 32);
  return `[cache partition ${partition}]`;
}

/** OpenAI's field often holds an address, so it leaves here only as a digest. Undefined without one, or without a salt. */
export function endUserOf({ body, cacheSalt }: ProviderCall): string | undefined {
  const user = body['safety_identifier'] ?? body['user'];
  if (typeof user !== 'string' || user === '' || cacheSalt === undefined) return undefined;
  return digest([cacheSalt, 'user', user]);
}

function digest(parts: readonly unknown[]): string {
  return createHash('sha256').update(JSON.stringify(parts)).digest('hex');
}
