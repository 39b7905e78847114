/** One process of the leak run: `leaking-replica.ts <url> <prefix> <seed>`. Works until it is killed. */
import { ValkeyLimitStore } from '../../src/adapters/valkey/limit-store.ts';
import { systemClock } from '../../src/primitives/clock.ts';
import { seededRandom } from '../../src/primitives/random.ts';
import { endAtRandom, leaseMs } from './random-endings.ts';
import { noMoney } from './shapes.ts';
import { connect } from './valkey-cost.ts';

const atOnce = 32;
const [url = '', prefix = '', seed = ''] = process.argv.slice(2);
const store = new ValkeyLimitStore({ connection: await connect(url), clock: systemClock, budgets: noMoney, prefix });
const random = seededRandom(Number(seed));
let [number, endings, forgotten] = [0, 0, 0];

setInterval(() => {
  process.send?.({ endings, forgotten });
  [endings, forgotten] = [0, 0];
}, 100);
setInterval(() => void store.reap(), leaseMs / 3);

async function work(): Promise<never> {
  for (;;) {
    const cost = await endAtRandom(store, random, `${seed}-${number++}`);
    endings++;
    if (cost === undefined) forgotten++;
  }
}

await Promise.all(Array.from({ length: atOnce }, work));
