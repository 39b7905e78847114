/** A process that puts stores in their place and is killed at the nth time of a step: `node whale-child.ts STEP TIMES` with TEST_WHALE_DATABASE. */
import { Database } from '../../../src/adapters/postgres/database.ts';
import { type PlacementBounds, PostgresPlacementKeeper } from '../../../src/adapters/postgres/placement-keeper.ts';
import { RecallWatch } from '../../../src/adapters/postgres/recall-watch.ts';
import { systemClock } from '../../../src/primitives/clock.ts';
import { seededRandom } from '../../../src/primitives/random.ts';
import { silentLogger } from '../../../src/telemetry/logger.ts';
import { mintOperatorScope } from '../../../src/tenancy/mint-operator-scope.ts';
import { principalOf } from '../../support/embedded-database.ts';

const [stopAt = '', times = '1'] = process.argv.slice(2);
const bounds = JSON.parse(process.env['TEST_WHALE_BOUNDS'] ?? '{}') as PlacementBounds;
const database = new Database({ connection: { url: process.env['TEST_WHALE_DATABASE'] ?? '' }, poolSize: 4, queryTimeoutMs: 30_000 });
let left = Number(times);
const keeper = new PostgresPlacementKeeper({
  shared: database,
  owner: database,
  bounds,
  watch: new RecallWatch(bounds.recallMin, silentLogger),
  clock: systemClock,
  random: seededRandom(3),
  logger: silentLogger,
  onStep: (step) => {
    if (step === stopAt && --left === 0) process.kill(process.pid, 'SIGKILL');
  },
});
await keeper.sweep(mintOperatorScope('test'), (tenantId) => principalOf(tenantId), new AbortController().signal);
await database.close();
