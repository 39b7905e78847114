import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { sql } from 'kysely';
import { afterEach, describe, expect, it } from 'vitest';
import { DataDirectoryLock } from '../../src/adapters/postgres/data-directory-lock.ts';
import { BulkheadError } from '../../src/errors/bulkhead-error.ts';
import { openEmbeddedTestDatabase, principalOf } from '../support/embedded-database.ts';

const directories: string[] = [];
afterEach(() => {
  for (const directory of directories.splice(0)) rmSync(directory, { recursive: true, force: true });
});

function newDirectory(name = ''): string {
  const directory = mkdtempSync(join(tmpdir(), `bulkhead-chaos-${name}`));
  directories.push(directory);
  return directory;
}

const programme = (name: string) => fileURLToPath(new URL(`./${name}.ts`, import.meta.url));

function start(name: string, args: readonly string[]): { readonly child: ChildProcess; readonly lines: AsyncIterator<string> } {
  const child = spawn(process.execPath, [programme(name), ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  return { child, lines: createInterface({ input: child.stdout as NodeJS.ReadableStream })[Symbol.asyncIterator]() };
}

async function kill(child: ChildProcess): Promise<void> {
  const ended = once(child, 'exit');
  child.kill('SIGKILL');
  await ended;
}

describe('the embedded database', () => {
  it('has every acknowledged row after six kills in the middle of writing', async () => {
    const dataDir = newDirectory();
    let acknowledged = -1;
    for (let round = 0; round < 6; round++) {
      const { child, lines } = start('embedded-writer', [dataDir, String(acknowledged + 1000 * round + 1)]);
      const seen: number[] = [];
      for (let line = await lines.next(); !line.done && seen.length < 15 + round * 7; line = await lines.next())
        seen.push(Number(line.value));
      await kill(child);
      acknowledged = Math.max(acknowledged, ...seen);
      await using db = await openEmbeddedTestDatabase({ dataDir });
      const { rows } = await db.database
        .forTenant(principalOf('acme'))
        .read((q) => sql<{ readonly id: string }>`SELECT id FROM app.response`.execute(q));
      const there = new Set(rows.map((row) => row.id));
      expect(seen.filter((index) => !there.has(`r${index}`))).toEqual([]);
    }
  });

  it('is restarted by the watchdog when a statement does not end, answers 503 meanwhile, and works again', async () => {
    const dataDir = newDirectory();
    // Migrated before the watchdog is made impatient: on a busy machine a migration may take longer.
    await (await openEmbeddedTestDatabase({ dataDir }))[Symbol.asyncDispose]();
    await using db = await openEmbeddedTestDatabase({ dataDir, queryTimeoutMs: 1_000 });
    const tenant = db.database.forTenant(principalOf('acme'));
    await tenant.write((q) =>
      sql`INSERT INTO app.response (id, created_at_ms, response, input_items) VALUES ('kept', 1, '\\x01', '\\x01')`.execute(q),
    );
    const endless = tenant
      .read((q) => sql`SELECT count(*) FROM generate_series(1, 10000000000)`.execute(q))
      .catch((error: unknown) => error);
    const bystander = tenant.read((q) => sql`SELECT 1`.execute(q)).catch((error: unknown) => error);
    expect(await endless).toMatchObject({ code: 'database_unavailable' });
    const other = await bystander;
    if (other instanceof Error) expect(other).toMatchObject({ code: 'database_unavailable' });
    await expect
      .poll(
        async () =>
          tenant
            .read((q) => sql`SELECT id FROM app.response`.execute(q))
            .then(
              ({ rows }) => rows.length,
              () => 0,
            ),
        { timeout: 15_000 },
      )
      .toBe(1);
  });

  it('opens below a path too long for a socket', async () => {
    const dataDir = join(newDirectory(), 'd'.repeat(120));
    await using db = await openEmbeddedTestDatabase({ dataDir });
    expect(await db.database.probe()).toBe(true);
    expect(db.engine.socketDir.startsWith(dataDir)).toBe(false);
  });

  it('leaves no socket behind when it closes', async () => {
    const dataDir = newDirectory();
    const db = await openEmbeddedTestDatabase({ dataDir });
    const socket = join(db.engine.socketDir, '.s.PGSQL.5432');
    expect(existsSync(socket)).toBe(true);
    await db[Symbol.asyncDispose]();
    expect(existsSync(socket)).toBe(false);
  });
});

describe('the lock of a data directory', () => {
  it('refuses a second process with a sentence that names the first, and is free after kill -9', async () => {
    const dataDir = newDirectory();
    const first = start('lock-holder', [dataDir]);
    expect((await first.lines.next()).value).toBe('held');
    const second = start('lock-holder', [dataDir]);
    expect((await second.lines.next()).value).toContain(`in use by process ${first.child.pid}`);
    await kill(first.child);
    const third = start('lock-holder', [dataDir]);
    expect((await third.lines.next()).value).toBe('held');
    await kill(third.child);
  });

  it('is held by one of many processes that find it stale together', async () => {
    const dataDir = newDirectory();
    writeFileSync(join(dataDir, 'lock'), JSON.stringify({ pid: 999_999_999, startTicks: '1' }));
    const contenders = Array.from({ length: 6 }, () => start('lock-holder', [dataDir]));
    const answers = await Promise.all(contenders.map(async ({ lines }) => (await lines.next()).value as string));
    await Promise.all(contenders.filter(({ child }) => child.exitCode === null).map(({ child }) => kill(child)));
    expect(answers.filter((answer) => answer === 'held')).toHaveLength(1);
  });

  it('is not mistaken for held when the process id belongs to somebody else by now', () => {
    const dataDir = newDirectory();
    writeFileSync(join(dataDir, 'lock'), JSON.stringify({ pid: process.pid, startTicks: 'another start' }));
    using lock = DataDirectoryLock.acquire(dataDir);
    expect(() => DataDirectoryLock.acquire(dataDir)).toThrow(BulkheadError);
    lock.release();
    DataDirectoryLock.acquire(dataDir).release();
  });
});
