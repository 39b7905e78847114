/** Reserve and settle on a real Valkey: what the client gets, what the server spends, and an empty script asked for in the same way by valkey-benchmark. */
import type { RunningValkey } from '../../../scripts/services.mjs';
import { ValkeyLimitStore } from '../../src/adapters/valkey/limit-store.ts';
import { ValkeyConnection } from '../../src/adapters/valkey/valkey-connection.ts';
import { systemClock } from '../../src/primitives/clock.ts';
import { silentLogger } from '../../src/telemetry/logger.ts';
import { processorSeconds } from '../support/machine.ts';
import { noMoney, type Shape } from './shapes.ts';
import { paceOfStores, type StorePace } from './store-pace.ts';

export interface ValkeyCost extends StorePace {
  readonly shape: string;
  readonly connections: number;
  readonly inFlight: number;
  /** By the server's own clock (INFO commandstats): also counts while it waits for a processor. */
  readonly serverUsPerCall: number;
  /** Processor time of the server process, with what the network costs. */
  readonly serverProcessorUsPerCall: number;
  readonly callsPerRequest: number;
  /** `EVALSHA` of an empty script by valkey-benchmark right after, as many connections and calls at once. */
  readonly emptyScriptsPerSecond: number;
}

export interface Asked {
  readonly shape: Shape;
  readonly connections: number;
  readonly inFlight: number;
  readonly durationMs: number;
}

const tenants = 1_000;

export async function connect(url: string, commandTimeoutMs = 5_000): Promise<ValkeyConnection> {
  const connection = ValkeyConnection.open({ url, commandTimeoutMs, logger: silentLogger });
  for (let attempt = 0; attempt < 1_000 && !connection.isReady; attempt++) await new Promise((resolve) => setTimeout(resolve, 10));
  if (!connection.isReady) throw new Error('there is no Valkey');
  return connection;
}

export async function measureValkey(server: RunningValkey, { shape, connections, inFlight, durationMs }: Asked): Promise<ValkeyCost> {
  await using opened = new AsyncDisposableStack();
  const stores: ValkeyLimitStore[] = [];
  for (let index = 0; index < connections; index++) {
    const connection = opened.use(await connect(server.url));
    stores.push(new ValkeyLimitStore({ connection, clock: systemClock, budgets: noMoney, prefix: shape.name }));
  }
  const control = opened.use(await connect(server.url));
  const load = { stores, shape, tenants, inFlight };
  // Every budget is met: its first request is a call more.
  await paceOfStores({ ...load, inFlight: 64, durationMs: durationMs / 5, requestsMin: tenants });
  await control.send(['CONFIG', 'RESETSTAT']);
  const processorBefore = processorSeconds(server.pid ?? 0);
  const pace = await paceOfStores({ ...load, durationMs });
  const processor = processorSeconds(server.pid ?? 0) - processorBefore;
  const { calls, us } = scriptCalls(await control.send<string>(['INFO', 'commandstats']));
  return {
    ...pace,
    shape: shape.name,
    connections,
    inFlight,
    serverUsPerCall: us / calls,
    serverProcessorUsPerCall: (processor * 1e6) / calls,
    callsPerRequest: calls / pace.requests,
    emptyScriptsPerSecond: await emptyScripts(server, control, { connections, inFlight, durationMs }),
  };
}

/** A store asks by scripts alone; what they call is listed beside them. */
function scriptCalls(stats: string): { readonly calls: number; readonly us: number } {
  let [calls, us] = [0, 0];
  for (const [, name = '', count, time] of stats.matchAll(/cmdstat_([^:]+):calls=(\d+),usec=(\d+)/g)) {
    if (!name.startsWith('eval')) continue;
    calls += Number(count);
    us += Number(time);
  }
  return { calls, us };
}

async function emptyScripts(server: RunningValkey, control: ValkeyConnection, asked: Omit<Asked, 'shape'>): Promise<number> {
  if (server.benchmark === undefined) return Number.NaN;
  const digest = await control.send<string>(['SCRIPT', 'LOAD', 'return 1']);
  const pipelined = Math.max(1, Math.round(asked.inFlight / asked.connections));
  // About as long as the measurement, were it four times as fast as 10,000 a second for one at a time.
  const count = Math.round((asked.durationMs / 1_000) * (pipelined > 1 ? 100_000 : 10_000));
  const text = await server.benchmark(['-c', asked.connections, '-P', pipelined, '-n', count, '--csv', 'EVALSHA', digest, 0]);
  const line = text.trim().split('\n').at(-1) ?? '';
  return Number(line.split('","')[1]);
}
