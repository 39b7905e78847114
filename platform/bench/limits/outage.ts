/** What replicas admit together while Valkey is killed, against one exact bucket. */
import type { RunningValkey } from '../../../scripts/services.mjs';
import { MemoryLimitStore } from '../../src/adapters/memory/limit-store.ts';
import { ValkeyLimitStore } from '../../src/adapters/valkey/limit-store.ts';
import { ReplicaPresence } from '../../src/adapters/valkey/replica-presence.ts';
import { ValkeyUnavailable } from '../../src/adapters/valkey/valkey-connection.ts';
import type { LimitScope } from '../../src/admission/limit-store.ts';
import { ReplicatedLimits } from '../../src/admission/replicated-limits.ts';
import { systemClock } from '../../src/primitives/clock.ts';
import { systemIds } from '../../src/primitives/ids.ts';
import { silentLogger } from '../../src/telemetry/logger.ts';
import { noMoney } from './shapes.ts';
import { connect } from './valkey-cost.ts';

export interface Outage {
  readonly replicas: number;
  /** Tokens, while Valkey was away. */
  readonly admitted: number;
  readonly allowed: number;
  readonly beyondPercent: number;
  /** Longest a request waited for its answer. */
  readonly longestMs: number;
}

const replicas = 4;
const callers = 16;
const tokensPerMinute = 60_000;
const tokensOf = 50;
const prefix = 'outage';
const commandTimeoutMs = 25;

/** Ends the server. */
export async function measureOutage(server: RunningValkey, outageMs: number): Promise<Outage> {
  await using opened = new AsyncDisposableStack();
  const limits: ReplicatedLimits[] = [];
  const presences: ReplicaPresence[] = [];
  for (let index = 0; index < replicas; index++) {
    const connection = opened.use(await connect(server.url, commandTimeoutMs));
    const presence = opened.use(new ReplicaPresence(connection, { id: `replica-${index}`, prefix }));
    const shared = new ValkeyLimitStore({ connection, clock: systemClock, budgets: noMoney, prefix });
    presences.push(presence);
    limits.push(
      opened.use(
        new ReplicatedLimits({
          shared,
          openLocal: () => new MemoryLimitStore(systemClock),
          place: () => presence.place,
          isUnavailable: (error) => error instanceof ValkeyUnavailable,
          probe: () => connection.send(['PING']),
          budgets: noMoney,
          ids: systemIds,
          logger: silentLogger,
        }),
      ),
    );
  }
  for (const presence of [...presences, ...presences]) await presence.beHere();
  // Each has heard of the bucket, half of it is used.
  const use = new Use(limits);
  await use.upTo(tokensPerMinute / 2);
  // On a busy machine one or the other may have waited too long for an answer and gone on alone.
  while (limits.some(({ isAlone }) => isAlone)) await new Promise((resolve) => setTimeout(resolve, 50));
  const witness = opened.use(await connect(server.url));
  const { left, atMs } = await use.left(new ValkeyLimitStore({ connection: witness, clock: systemClock, budgets: noMoney, prefix }));
  await server.stop('SIGKILL');
  const before = use.admitted;
  await use.until(performance.now() + outageMs);
  const admitted = use.admitted - before;
  const allowed = left + ((performance.now() - atMs) / 60_000) * tokensPerMinute;
  return { replicas, admitted, allowed, beyondPercent: Math.max(0, (admitted / allowed - 1) * 100), longestMs: use.longestMs };
}

class Use {
  admitted = 0;
  longestMs = 0;
  readonly #limits: readonly ReplicatedLimits[];
  #number = 0;
  readonly #scopes: readonly LimitScope[] = [{ name: 'tenant', key: 't:4.acme', limits: { tokensPerMinute } }];

  constructor(limits: readonly ReplicatedLimits[]) {
    this.#limits = limits;
  }

  async upTo(tokens: number): Promise<void> {
    for (let index = 0; this.admitted < tokens; index++) await this.#ask(index, tokensOf);
  }

  /** What the shared bucket holds, after every replica has heard of it once more. */
  async left(witness: ValkeyLimitStore): Promise<{ readonly left: number; readonly atMs: number }> {
    for (const [index] of this.#limits.entries()) await this.#ask(index, 0);
    const amounts = { inputTokens: 0, outputTokens: 0, costNanoUsd: 0 };
    const outcome = await witness.reserve({ reservationId: 'witness', leaseMs: 30_000, amounts, scopes: this.#scopes });
    const atMs = performance.now();
    if (outcome.kind !== 'reserved') throw new Error(`the witness was ${outcome.kind}`);
    return { left: outcome.states[0]?.remaining ?? Number.NaN, atMs };
  }

  async until(endMs: number): Promise<void> {
    const caller = async (index: number) => {
      while (performance.now() < endMs) {
        const { kind } = await this.#ask(index, tokensOf);
        if (kind !== 'reserved') await new Promise((resolve) => setTimeout(resolve, 5));
      }
    };
    await Promise.all(Array.from({ length: callers }, (_, index) => caller(index)));
  }

  async #ask(index: number, tokens: number) {
    const limits = this.#limits[index % this.#limits.length] as ReplicatedLimits;
    const reservationId = `r${this.#number++}`;
    const amounts = { inputTokens: tokens, outputTokens: 0, costNanoUsd: 0 };
    const fromMs = performance.now();
    const outcome = await limits.reserve({ reservationId, leaseMs: 30_000, amounts, scopes: this.#scopes });
    this.longestMs = Math.max(this.longestMs, performance.now() - fromMs);
    if (outcome.kind !== 'reserved') return outcome;
    this.admitted += tokens;
    await limits.settle(reservationId, amounts);
    return outcome;
  }
}
