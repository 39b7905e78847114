/** Kills a whole Bulkhead at random moments of what it does, and looks at what is there when it is back. */
import { setTimeout as wait } from 'node:timers/promises';
import { seededRandom } from '../../src/primitives/random.ts';
import { killKinds } from './kill-kinds.ts';
import { KilledBulkhead } from './killed-bulkhead.ts';

export interface KillSoakOptions {
  readonly points: number;
  readonly seed: number;
  readonly kinds?: readonly string[];
  readonly onPoint?: (report: KillReport, kind: string) => void;
  readonly signal?: AbortSignal;
}

export interface KillReport {
  readonly points: number;
  /** Kills by what was under way, and how many of them came before it had ended. */
  readonly byKind: Readonly<Record<string, { readonly kills: number; readonly meanwhile: number }>>;
  readonly problems: readonly string[];
  readonly seconds: number;
}

/** The first of a kind is let end, to know how long it takes; later ones are killed within that and a little more. */
const beyond = 1.15;
const longestMs = 20_000;

export async function soakKills(options: KillSoakOptions): Promise<KillReport> {
  const random = seededRandom(options.seed);
  const kinds = killKinds.filter(({ name }) => options.kinds?.includes(name) ?? true);
  const durations = new Map<string, number>();
  const byKind: Record<string, { kills: number; meanwhile: number }> = {};
  const problems: string[] = [];
  const startedMs = performance.now();
  const report = () => ({ points: sumOf(byKind), byKind, problems, seconds: (performance.now() - startedMs) / 1_000 });
  await using bulkhead = await KilledBulkhead.start();
  for (const [index, kind] of kinds.entries()) {
    const attempt = await kind.begin(bulkhead, index % 2);
    const from = performance.now();
    await attempt.work();
    durations.set(kind.name, performance.now() - from);
    problems.push(...(await attempt.problems()).map((problem) => `${kind.name}, nobody killed: ${problem}`));
    await attempt.tidy();
  }
  for (let point = 0; point < options.points && options.signal?.aborted !== true; point++) {
    const kind = kinds[point % kinds.length];
    if (kind === undefined) break;
    const attempt = await kind.begin(bulkhead, kinds.length + point);
    const atMs = Math.min(longestMs, random.next() * beyond * (durations.get(kind.name) ?? longestMs));
    let hasEnded = false;
    const working = attempt.work().then(
      () => {
        hasEnded = true;
      },
      () => {},
    );
    await Promise.race([wait(atMs), working]);
    const wasMeanwhile = !hasEnded;
    await bulkhead.kill();
    await working;
    await bulkhead.restart();
    const found = await attempt.problems();
    await attempt.tidy();
    problems.push(...found.map((problem) => `${kind.name}, point ${point}, after ${Math.round(atMs)} ms: ${problem}`));
    const { kills, meanwhile } = byKind[kind.name] ?? { kills: 0, meanwhile: 0 };
    byKind[kind.name] = { kills: kills + 1, meanwhile: meanwhile + (wasMeanwhile ? 1 : 0) };
    options.onPoint?.(report(), kind.name);
  }
  return report();
}

function sumOf(byKind: Readonly<Record<string, { readonly kills: number }>>): number {
  return Object.values(byKind).reduce((sum, { kills }) => sum + kills, 0);
}
