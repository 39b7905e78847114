import {
  appendFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { encodeLine } from '../../src/adapters/journal-file/line.ts';
import { FileUsageJournal, type FileUsageJournalOptions } from '../../src/adapters/journal-file/usage-journal.ts';
import type { Logger } from '../../src/telemetry/logger.ts';
import { ScriptedLedger } from '../contracts/scripted-ledger.ts';
import { usageEvent } from '../contracts/usage-events.ts';

let directory: string;
let ledger: ScriptedLedger;
let logged: string[];
const logger: Logger = {
  debug() {},
  info() {},
  warn: (_fields, message) => logged.push(`warn ${message}`),
  error: (_fields, message) => logged.push(`error ${message}`),
};

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'bulkhead-journal-'));
  ledger = new ScriptedLedger();
  logged = [];
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const open = (options: Partial<FileUsageJournalOptions> = {}) => FileUsageJournal.open({ directory, ledger, logger, ...options });
const files = (kind: string) => readdirSync(directory).filter((name) => name.startsWith(kind));
const idsOf = (...numbers: readonly number[]) => numbers.map((number) => usageEvent(number).id);

/** What a process that was killed leaves behind: appended, never closed. */
async function leaveBehind(...numbers: readonly number[]): Promise<string> {
  const journal = await open();
  for (const number of numbers) journal.append(usageEvent(number));
  return join(directory, files('usage-').at(-1) ?? '');
}

async function reopenAndFlush(): Promise<FileUsageJournal> {
  const journal = await open();
  await journal.flush();
  return journal;
}

describe('after a crash', () => {
  test('what was not delivered is delivered once, and the segment is deleted', async () => {
    await leaveBehind(1, 2, 3);
    const journal = await open();
    expect(journal.pendingCount).toBe(3);
    expect(logged).toEqual([expect.stringContaining('warn found usage events not yet in the ledger')]);
    await journal.flush();
    expect([ledger.ids, journal.pendingCount, files('usage-')]).toEqual([idsOf(1, 2, 3), 0, []]);
  });

  test('what was delivered is not delivered again', async () => {
    const first = await open();
    first.append(usageEvent(1));
    await first.flush();
    first.append(usageEvent(2));
    await reopenAndFlush();
    expect([ledger.received, ledger.ids]).toEqual([2, idsOf(1, 2)]);
  });

  test.each([
    ['deleted', undefined],
    ['empty', ''],
    ['nonsense', '0000002a 9 99999999\n'],
    ['torn', '\0'.repeat(80)],
  ])('a checkpoint that is %s only means that the ledger skips what it has', async (_name, content) => {
    const first = await open();
    first.append(usageEvent(1));
    await first.flush();
    first.append(usageEvent(2));
    if (content === undefined) rmSync(join(directory, 'checkpoint'));
    else writeFileSync(join(directory, 'checkpoint'), content);
    await reopenAndFlush();
    expect([ledger.received, ledger.ids]).toEqual([3, idsOf(1, 2)]);
  });

  test('a last line that was cut off anywhere is dropped, and those before it are kept', async () => {
    const path = await leaveBehind(1, 2);
    const whole = readFileSync(path);
    const secondStart = whole.indexOf(0x0a) + 1;
    for (const size of [secondStart, secondStart + 1, secondStart + 10, whole.length - 2, whole.length - 1]) {
      writeFileSync(path, whole.subarray(0, size));
      rmSync(join(directory, 'checkpoint'), { force: true });
      const fresh = new ScriptedLedger();
      const journal = await open({ ledger: fresh });
      await journal.flush();
      expect([fresh.ids, journal.pendingCount, files('quarantine')]).toEqual([idsOf(1), 0, []]);
    }
    expect(logged.filter((line) => line.includes('dropped')).length).toBe(4);
  });

  test('new events never continue a line that was cut off', async () => {
    const path = await leaveBehind(1, 2);
    truncateSync(path, statSync(path).size - 5);
    const journal = await open();
    journal.append(usageEvent(3));
    await journal.flush();
    expect([ledger.ids, files('quarantine')]).toEqual([idsOf(1, 3), []]);
  });
});

describe('a damaged line in the middle', () => {
  test.each([
    ['a flipped bit', (line: Buffer) => line.fill(line.readUInt8(60) ^ 1, 60, 61)],
    ['zeros', (line: Buffer) => line.fill(0)],
    ['a checksum that is not one', (line: Buffer) => line.fill('z', 0, 8)],
    ['a line break inside', (line: Buffer) => line.fill('\n', 100, 101)],
  ])('(%s) is kept aside with a loud log line, and holds up nothing', async (_name, damage) => {
    const path = await leaveBehind(1, 2, 3);
    const content = readFileSync(path);
    const start = content.indexOf(0x0a) + 1;
    const end = content.indexOf(0x0a, start);
    damage(content.subarray(start, end));
    writeFileSync(path, content);
    const journal = await reopenAndFlush();
    expect([ledger.ids, journal.pendingCount]).toEqual([idsOf(1, 3), 0]);
    expect(
      readFileSync(join(directory, 'quarantine-000001.log')).equals(Buffer.concat([content.subarray(start, end), Buffer.from('\n')])),
    ).toBe(true);
    expect(logged.filter((line) => line.startsWith('error') && line.includes('NOT billed')).length).toBeGreaterThan(0);
  });

  test('is kept aside once, however often the ledger fails', async () => {
    const path = await leaveBehind(1);
    appendFileSync(path, 'garbage\n');
    ledger.failures.push('before', 'before');
    const journal = await open();
    await expect(journal.flush()).rejects.toThrow();
    await expect(journal.flush()).rejects.toThrow();
    await journal.flush();
    expect(readFileSync(join(directory, 'quarantine-000001.log'), 'utf8')).toBe('garbage\n');
  });

  test('longer than any line is passed over in bounded pieces', async () => {
    const path = await leaveBehind(1);
    appendFileSync(path, `${'x'.repeat(3_000_000)}\n`);
    const second = await leaveBehind(2);
    expect(second).not.toBe(path);
    const journal = await reopenAndFlush();
    expect([ledger.ids, journal.pendingCount]).toEqual([idsOf(1, 2), 0]);
    expect(statSync(join(directory, 'quarantine-000001.log')).size).toBeGreaterThanOrEqual(3_000_001);
  });

  test('of a later format is kept aside, not guessed at', async () => {
    const path = await leaveBehind(1);
    const json = Buffer.from(
      encodeLine(usageEvent(2))
        .toString('utf8')
        .replace(/^\S+ \d+ /, '')
        .trimEnd()
        .replace(/"v":1\}$/, '"v":2}'),
    );
    appendFileSync(path, `${crc32(json).toString(16).padStart(8, '0')} ${json.length} ${json.toString('utf8')}\n`);
    await reopenAndFlush();
    expect([ledger.ids, files('quarantine').length]).toEqual([idsOf(1), 1]);
  });
});

describe('bounds', () => {
  const lineBytes = encodeLine(usageEvent(1)).length;

  test('segments rotate by size and are deleted when delivered, so the disk stays small', async () => {
    const journal = await open({ segmentBytesMax: 10_000 });
    for (let number = 1; number <= 100; number++) journal.append(usageEvent(number));
    expect(files('usage-').length).toBeGreaterThan(8);
    for (const name of files('usage-')) expect(statSync(join(directory, name)).size).toBeLessThanOrEqual(10_000);
    await journal.flush();
    expect([ledger.ids.length, files('usage-').length]).toEqual([100, 1]);
  });

  test('the backlog is refused beyond its size, and taken again once the ledger has caught up', async () => {
    const journal = await open({ backlogBytesMax: 10_000 });
    let taken = 0;
    const fill = () => {
      for (; taken < 100; taken++) journal.append(usageEvent(taken + 1));
    };
    expect(fill).toThrow(
      expect.objectContaining({ code: 'metering_unavailable', message: expect.stringContaining('of 10000 bytes wait') }),
    );
    expect(statSync(join(directory, files('usage-')[0] ?? '')).size).toBeLessThanOrEqual(10_000);
    expect(journal.pendingCount).toBe(taken);
    await journal.flush();
    journal.append(usageEvent(200));
    expect(ledger.ids.length).toBe(taken);
  });

  test('new requests are refused while those in flight can still be recorded', async () => {
    const journal = await open({ backlogBytesMax: 20 * lineBytes });
    let number = 0;
    const isRoom = () => {
      try {
        journal.assertRoom();
        return true;
      } catch {
        return false;
      }
    };
    while (isRoom()) journal.append(usageEvent(++number));
    journal.append(usageEvent(++number));
    expect(number).toBeLessThan(20);
    await journal.flush();
    expect(isRoom()).toBe(true);
  });

  test('a backlog left behind counts against the bound of the next process', async () => {
    await leaveBehind(1, 2, 3, 4, 5, 6, 7, 8, 9, 10);
    const journal = await open({ backlogBytesMax: 5_000 });
    expect(() => journal.append(usageEvent(11))).toThrow(expect.objectContaining({ code: 'metering_unavailable' }));
  });

  test('a closed journal takes nothing', async () => {
    const journal = await open();
    await journal[Symbol.asyncDispose]();
    await journal[Symbol.asyncDispose]();
    expect(() => journal.append(usageEvent(1))).toThrow(expect.objectContaining({ code: 'metering_unavailable' }));
    expect(() => journal.assertRoom()).toThrow(expect.objectContaining({ code: 'metering_unavailable' }));
  });

  test('only the owner can read usage', async () => {
    rmSync(directory, { recursive: true });
    const path = await leaveBehind(1);
    expect([statSync(directory).mode & 0o777, statSync(path).mode & 0o777]).toEqual([0o700, 0o600]);
  });

  test('a second process in the same directory fails instead of mixing lines', async () => {
    const [first, second] = [await open(), await open()];
    first.append(usageEvent(1));
    expect(() => second.append(usageEvent(2))).toThrow(expect.objectContaining({ code: 'metering_unavailable' }));
  });
});

describe('a full disk', () => {
  const diskFull = Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' });

  test('is an error of the append, takes nothing, and leaves no half line behind', async () => {
    let room = 2_500;
    const write = (fd: number, bytes: Buffer) => {
      if (room <= 0) throw diskFull;
      const written = writeSync(fd, bytes, 0, Math.min(room, bytes.length));
      room -= written;
      return written;
    };
    const journal = await open({ write });
    journal.append(usageEvent(1));
    journal.append(usageEvent(2));
    for (const number of [3, 4]) {
      expect(() => journal.append(usageEvent(number))).toThrow(expect.objectContaining({ code: 'metering_unavailable' }));
    }
    expect(journal.pendingCount).toBe(2);
    room = 10_000;
    journal.append(usageEvent(5));
    await journal.flush();
    expect([ledger.ids, files('quarantine')]).toEqual([idsOf(1, 2, 5), []]);
  });

  test('is asked about again before the next request, so service resumes by itself', async () => {
    let isFull = true;
    const write = (fd: number, bytes: Buffer) => {
      if (isFull) throw diskFull;
      return writeSync(fd, bytes);
    };
    const journal = await open({ write });
    expect(() => journal.append(usageEvent(1))).toThrow(expect.objectContaining({ cause: diskFull }));
    isFull = false;
    journal.assertRoom();
    expect(files('probe')).toEqual([]);
    journal.append(usageEvent(2));
  });

  test('does not keep the ledger from getting what was written', async () => {
    const journal = await open({ segmentBytesMax: 2_000 });
    for (const number of [1, 2, 3, 4]) journal.append(usageEvent(number));
    // A directory of that name cannot be written to.
    mkdirSync(join(directory, 'checkpoint'));
    await journal.flush();
    expect([ledger.ids, journal.pendingCount]).toEqual([idsOf(1, 2, 3, 4), 0]);
    expect(logged.filter((line) => line === 'warn could not write the checkpoint').length).toBeGreaterThan(0);
  });
});

describe('events appended lately', () => {
  test('reach the ledger without being read back, and no more of them are kept than the bound', async () => {
    const journal = await open({ recentEventsMax: 3, batchEventsMax: 2 });
    for (const number of [1, 2, 3]) journal.append(usageEvent(number));
    // Nobody could read these lines any more.
    writeFileSync(join(directory, files('usage-').at(-1) ?? ''), '');
    await journal.flush();
    expect(ledger.ids).toEqual(idsOf(1, 2, 3));
    await journal[Symbol.asyncDispose]();
  });

  test('are read back from where the memory ends', async () => {
    const journal = await open({ recentEventsMax: 3, batchEventsMax: 2 });
    for (const number of [1, 2, 3, 4, 5]) journal.append(usageEvent(number));
    await journal.flush();
    for (const number of [6, 7]) journal.append(usageEvent(number));
    await journal.flush();
    expect(ledger.ids).toEqual(idsOf(1, 2, 3, 4, 5, 6, 7));
    expect(journal.pendingCount).toBe(0);
    await journal[Symbol.asyncDispose]();
  });
});

test('whatever the order of appends, flushes, ledger failures and crashes, the ledger has every event once and in order', async () => {
  const step = fc.oneof(
    { weight: 5, arbitrary: fc.record({ kind: fc.constant('append' as const), count: fc.integer({ min: 1, max: 12 }) }) },
    { weight: 3, arbitrary: fc.record({ kind: fc.constant('flush' as const), failure: fc.constantFrom('none', 'before', 'after') }) },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant('append during flush' as const), count: fc.integer({ min: 1, max: 9 }) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('crash' as const) }) },
  );
  const scenario = fc.record({
    steps: fc.array(step, { minLength: 1, maxLength: 15 }),
    segmentBytesMax: fc.constantFrom(1_000, 3_000, 7_000),
    batchEventsMax: fc.integer({ min: 1, max: 6 }),
    recentEventsMax: fc.constantFrom(0, 1, 4, 1_000),
  });
  await fc.assert(
    fc.asyncProperty(scenario, async ({ steps, ...options }) => {
      rmSync(directory, { recursive: true, force: true });
      ledger = new ScriptedLedger();
      let appended = 0;
      const lives: FileUsageJournal[] = [];
      const live = async () => {
        const next = await open(options);
        lives.push(next);
        return next;
      };
      let journal = await live();
      const append = (count: number) => {
        for (let left = count; left > 0; left--) journal.append(usageEvent(++appended));
      };
      for (const action of steps) {
        if (action.kind === 'append') append(action.count);
        if (action.kind === 'crash') journal = await live();
        if (action.kind === 'append during flush') ledger.duringAppend = () => append(action.count);
        if (action.kind === 'flush' && action.failure !== 'none') ledger.failures.push(action.failure as 'before' | 'after');
        if (action.kind === 'flush' || action.kind === 'append during flush') await journal.flush().catch(() => {});
        ledger.duringAppend = () => {};
      }
      ledger.failures.length = 0;
      await journal.flush();
      expect(ledger.ids).toEqual(Array.from({ length: appended }, (_, index) => usageEvent(index + 1).id));
      expect([journal.pendingCount, files('quarantine').length]).toEqual([0, 0]);
      expect(files('usage-').length).toBeLessThanOrEqual(1);
      for (const ended of lives) await ended[Symbol.asyncDispose]();
    }),
    { numRuns: 60 },
  );
});
