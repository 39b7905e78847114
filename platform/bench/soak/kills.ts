/**
 * `npm run soak:kills -- [--points 200] [--seed 1] [--kinds ingest,move]`: kills a whole Bulkhead (SIGKILL) at random moments and looks at what is there
 * after each restart. Ends with code 1 when something was lost or half visible.
 */
import { parseArgs } from 'node:util';
import { type KillReport, soakKills } from '../../test/soak/kill-soak.ts';

const { values } = parseArgs({
  options: { points: { type: 'string', default: '200' }, seed: { type: 'string', default: '1' }, kinds: { type: 'string' } },
});
const interrupt = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => interrupt.abort());
const points = Number(values.points);
const report = await soakKills({
  points,
  seed: Number(values.seed),
  ...(values.kinds !== undefined && { kinds: values.kinds.split(',') }),
  signal: interrupt.signal,
  onPoint: (so, kind) => so.points % 10 === 0 && say(so, `so far, the last ${kind}`),
});
say(report, `seed ${values.seed}`);
for (const problem of report.problems) process.stdout.write(`  ${problem}\n`);
process.exit(report.problems.length > 0 || report.points < points ? 1 : 0);

function say({ points: done, byKind, problems, seconds }: KillReport, what: string): void {
  const kinds = Object.entries(byKind).map(([name, { kills, meanwhile }]) => `${name} ${kills} (${meanwhile} before its end)`);
  process.stdout.write(`${done} kills, ${what}: ${kinds.join(', ')}; ${problems.length} problems; ${Math.round(seconds)} s\n`);
}
