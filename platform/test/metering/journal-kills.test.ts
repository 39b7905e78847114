import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { FileUsageJournal } from '../../src/adapters/journal-file/usage-journal.ts';
import { type Random, seededRandom } from '../../src/primitives/random.ts';
import { silentLogger } from '../../src/telemetry/logger.ts';
import { usageEvent } from '../contracts/usage-events.ts';

const kills = 36;
const seed = 20_261_123;

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'bulkhead-kills-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

interface Lives {
  readonly acknowledged: readonly string[];
  /** Ids in the ledger, and how often each was handed over. */
  readonly delivered: ReadonlyMap<string, number>;
}

test(`every acknowledged event is in the ledger exactly once after ${kills} kills -9`, { timeout: 120_000 }, async () => {
  const { acknowledged, delivered } = await liveAndDie('none', kills);
  expect(acknowledged.length).toBeGreaterThan(kills * 20);
  expect(acknowledged.filter((id) => !delivered.has(id))).toEqual([]);
  expect(readdirSync(directory).filter((name) => name.startsWith('quarantine'))).toEqual([]);
  // The ledger was asked to take some twice, or the kills would have missed the moments that matter.
  expect([...delivered.values()].some((times) => times > 1)).toBe(true);
});

test('a journal that acknowledges before it writes is caught', { timeout: 60_000 }, async () => {
  const { acknowledged, delivered } = await liveAndDie('acknowledge before the write', 4);
  expect(acknowledged.filter((id) => !delivered.has(id)).length).toBeGreaterThan(0);
});

async function liveAndDie(fault: string, lives: number): Promise<Lives> {
  const random = seededRandom(seed);
  const acknowledged: string[] = [];
  const delivered = new Map<string, number>();
  const keep = (ids: readonly string[]) => {
    for (const id of ids) delivered.set(id, (delivered.get(id) ?? 0) + 1);
  };
  for (let life = 0; life < lives; life++) {
    const firstNumber = 1 + life * 100_000;
    acknowledged.push(...(await liveOnce({ fault, firstNumber, random, keep })));
  }
  const journal = await FileUsageJournal.open({
    directory,
    ledger: { append: async (events) => keep(events.map(({ id }) => id)) },
    logger: silentLogger,
  });
  await journal.flush();
  expect(journal.pendingCount).toBe(0);
  await journal[Symbol.asyncDispose]();
  expectNothingInvented(delivered, lives);
  return { acknowledged, delivered };
}

interface Life {
  readonly fault: string;
  readonly firstNumber: number;
  readonly random: Random;
  readonly keep: (ids: readonly string[]) => void;
}

/** Runs a child until it has acknowledged some events, then kills it: at once, or in the middle of a delivery. */
async function liveOnce({ fault, firstNumber, random, keep }: Life): Promise<readonly string[]> {
  const killAfterEvents = 1 + Math.floor(random.next() * 300);
  const when = (['now', 'before the ledger keeps', 'before the ledger answers'] as const)[Math.floor(random.next() * 3)] ?? 'now';
  const child = fork(join(import.meta.dirname, 'journal-child.ts'), [directory, String(firstNumber), String(seed + firstNumber), fault], {
    execArgv: [],
    stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
  });
  let printed = '';
  const isOldEnough = () => printed.split('\n').length > killAfterEvents;
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    printed += text;
    if (when === 'now' && isOldEnough()) kill(child);
  });
  child.on('message', (ids: readonly string[]) => {
    if (when === 'before the ledger keeps' && isOldEnough()) return kill(child);
    keep(ids);
    if (when === 'before the ledger answers' && isOldEnough()) return kill(child);
    if (child.connected) child.send('kept', () => {});
  });
  const [, signal] = await once(child, 'close');
  expect(signal).toBe('SIGKILL');
  return printed.split('\n').slice(0, -1);
}

function kill(child: ChildProcess): void {
  child.kill('SIGKILL');
}

function expectNothingInvented(delivered: ReadonlyMap<string, number>, lives: number): void {
  const highest = usageEvent(lives * 100_000).id;
  for (const id of delivered.keys()) expect(id <= highest).toBe(true);
}
