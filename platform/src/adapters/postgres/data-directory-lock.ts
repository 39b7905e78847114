/**
 * One process a data directory: two writers would corrupt it. The lock is a file that names its holder by process id and start
 * time, so neither a dead holder nor a recycled id can hold it. It is taken over only from a holder that is gone, never by time.
 */
import { linkSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { BulkheadError } from '../../errors/bulkhead-error.ts';

interface Holder {
  readonly pid: number;
  /** Clock ticks after boot when the process started (proc(5), field 22); empty where /proc is not there. */
  readonly startTicks: string;
}

const attemptsMax = 5;

export class DataDirectoryLock implements Disposable {
  readonly #file: string;

  private constructor(file: string) {
    this.#file = file;
  }

  /** Throws `data_directory_locked` with the id of the process that holds it. */
  static acquire(dataDir: string): DataDirectoryLock {
    mkdirSync(dataDir, { recursive: true, mode: 0o700 });
    const file = join(dataDir, 'lock');
    for (let attempt = 0; attempt < attemptsMax; attempt++) {
      if (tryCreate(file)) return new DataDirectoryLock(file);
      const holder = readHolder(file);
      if (holder !== undefined && isAlive(holder)) {
        throw new BulkheadError(
          'data_directory_locked',
          `The data directory ${dataDir} is in use by process ${holder.pid}. Stop that process, or choose another directory (dataDir, BULKHEAD_DATA_DIR).`,
        );
      }
      removeStale(file, holder);
    }
    throw new BulkheadError(
      'data_directory_locked',
      `The data directory ${dataDir} is being taken by another process right now; try again.`,
    );
  }

  release(): void {
    const holder = readHolder(this.#file);
    if (holder?.pid === process.pid) rmSync(this.#file, { force: true });
  }

  [Symbol.dispose](): void {
    this.release();
  }
}

function tryCreate(file: string): boolean {
  const holder: Holder = { pid: process.pid, startTicks: startTicksOf(process.pid) };
  try {
    writeFileSync(file, JSON.stringify(holder), { mode: 0o600, flag: 'wx' });
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

/** Moves the stale file aside first: of two processes that find it, one moves it; a living holder's file that was caught instead goes back. */
function removeStale(file: string, stale: Holder | undefined): void {
  const aside = `${file}.${process.pid}`;
  try {
    renameSync(file, aside);
  } catch {
    // Somebody else moved it.
    return;
  }
  const moved = readHolder(aside);
  if (moved !== undefined && moved.pid !== stale?.pid && isAlive(moved)) linkBack(aside, file);
  rmSync(aside, { force: true });
}

function linkBack(aside: string, file: string): void {
  try {
    linkSync(aside, file);
  } catch {
    // A third process has locked it meanwhile; its lock stands.
  }
}

function readHolder(file: string): Holder | undefined {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as Holder;
  } catch {
    // Gone meanwhile, or torn by a crash while it was written: nobody holds it.
    return undefined;
  }
}

function isAlive(holder: Holder): boolean {
  try {
    process.kill(holder.pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
  return startTicksOf(holder.pid) === holder.startTicks;
}

function startTicksOf(pid: number): string {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The command's name is in parentheses and may hold anything, so fields are counted after the last one.
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? '';
  } catch {
    return '';
  }
}
