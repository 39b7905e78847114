import type { LimitStore } from '../../src/admission/limit-store.ts';
import type { Random } from '../../src/primitives/random.ts';
import { reserved, wholeTree } from './shapes.ts';

export const leakTenants = 50;
/** Short, so that a run is. */
export const leaseMs = 2_000;

export const leakScopes = Array.from({ length: leakTenants }, (_, index) => wholeTree.scopesOf(`tenant-${index}`));

/** One request of some tenant, and its end. Resolves with what it has cost; undefined: its holder never said a word again. */
export async function endAtRandom(store: LimitStore, random: Random, reservationId: string): Promise<number | undefined> {
  const scopes = leakScopes[Math.floor(random.next() * leakTenants)] ?? [];
  const outcome = await store.reserve({ reservationId, leaseMs, amounts: reserved, scopes });
  if (outcome.kind !== 'reserved') throw new Error(`a reservation was ${outcome.kind}`);
  const draw = random.next();
  if (draw < 0.1) return undefined;
  // Answered, failed upstream after its input was read, or given up before it was sent.
  const outputTokens = draw < 0.5 ? Math.floor(random.next() * 600) : 0;
  const inputTokens = draw < 0.7 ? reserved.inputTokens : 0;
  const costNanoUsd = Math.floor((inputTokens + outputTokens) / 10);
  await store.settle(reservationId, { inputTokens, outputTokens, costNanoUsd });
  return costNanoUsd;
}
