/** The model of the pool script, which histories in simulated time run on, keeps the contract of the real one. */
import { expect } from 'vitest';
import { describePermitExchange } from '../contracts/permit-exchange.ts';
import { MemoryPermits } from '../support/memory-permits.ts';

describePermitExchange('the model of permits in Valkey', async (clock, names) => {
  const permits = new MemoryPermits(() => clock.monotonicMs());
  return names.map((name) => {
    const heard: string[] = [];
    const exchange = permits.replica(name);
    exchange.listen({
      granted: (poolId, { granted }) => heard.push(`granted ${poolId} ${granted}`),
      wanted: (poolId) => heard.push(`wanted ${poolId}`),
    });
    return { exchange, hears: async (message) => expect(heard).toContain(message) };
  });
});
