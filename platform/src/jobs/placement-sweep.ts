/** Brings large stores to their place in the background: one sweep after the other, the moves of rows as the tenants whose rows they are. */
import { setTimeout as wait } from 'node:timers/promises';
import { BulkheadError } from '../errors/bulkhead-error.ts';
import type { TenantId } from '../primitives/ids.ts';
import type { Logger } from '../telemetry/logger.ts';
import { mintPrincipal } from '../tenancy/mint-principal.ts';
import type { OperatorScope } from '../tenancy/operator-scope.ts';
import type { PlacementKeeper } from '../tenancy/placement.ts';
import type { Principal } from '../tenancy/principal.ts';

export interface PlacementSweepParts {
  readonly keeper: Pick<PlacementKeeper, 'sweep'>;
  readonly operator: OperatorScope;
  readonly intervalMs: number;
  readonly logger: Logger;
}

/** Runs until `signal` aborts. Never rejects: what fails is tried again by the next sweep. */
export async function runPlacementSweep({ keeper, operator, intervalMs, logger }: PlacementSweepParts, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    await wait(intervalMs, undefined, { signal, ref: false }).catch(() => {});
    if (signal.aborted) return;
    try {
      await keeper.sweep(operator, principalOf, signal);
    } catch (error) {
      if (signal.aborted) return;
      const code = error instanceof BulkheadError ? error.code : undefined;
      logger.error({ component: 'placement', code }, 'large stores could not be looked at; the next sweep tries again');
    }
  }
}

function principalOf(tenantId: TenantId): Principal {
  return mintPrincipal({ tenantId, kind: 'job', user: 'placement', keyId: 'job:placement' });
}
