/** Where limits are counted: in this process, or with `valkey.url` in one Valkey for every replica. */
import { MemoryLimitStore } from '../adapters/memory/limit-store.ts';
import { ValkeyLimitStore } from '../adapters/valkey/limit-store.ts';
import { ValkeyUnavailable } from '../adapters/valkey/valkey-connection.ts';
import type { BudgetSource, LimitStore } from '../admission/limit-store.ts';
import { ReplicatedLimits } from '../admission/replicated-limits.ts';
import type { Clock } from '../primitives/clock.ts';
import type { IdSource } from '../primitives/ids.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { Replicas } from './replicas.ts';

export interface LimitParts {
  readonly replicas: Replicas | undefined;
  readonly budgets: BudgetSource;
  readonly clock: Clock;
  readonly ids: IdSource;
  readonly logger: Logger;
}

/** What is opened is closed with the stack. */
export function openLimitStore(stack: AsyncDisposableStack, { replicas, budgets, clock, ids, logger }: LimitParts): LimitStore {
  if (replicas === undefined) return new MemoryLimitStore(clock, budgets);
  const { connection, presence } = replicas;
  return stack.use(
    new ReplicatedLimits({
      shared: new ValkeyLimitStore({ connection, clock, budgets }),
      openLocal: () => new MemoryLimitStore(clock, budgets),
      place: () => presence.place,
      isUnavailable: (error) => error instanceof ValkeyUnavailable,
      probe: () => connection.send(['PING']),
      budgets,
      ids,
      logger,
    }),
  );
}
