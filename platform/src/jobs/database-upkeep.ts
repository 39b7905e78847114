/**
 * Keeps the embedded databases in order: without it dead rows are never removed, tables only grow, the planner knows nothing of them, and the write-ahead log
 * grows until the process ends, all of it to be replayed by a start after a crash. One table or log at a time, when nobody has asked for anything for a
 * moment; what is worn out is mended even if it is never quiet.
 */
import { setTimeout as wait } from 'node:timers/promises';
import type { Logger } from '../telemetry/logger.ts';

export interface WornTable {
  /** Quoted, with its schema. */
  readonly name: string;
  /** Of a tenant's own database, where it is. */
  readonly place?: string;
  readonly deadRows: number;
  readonly changedRows: number;
  readonly bytes: number;
}

/** What a start after a crash would replay. */
export interface LongLog {
  /** Of a tenant's own database, where it is. */
  readonly place?: string;
  readonly bytes: number;
}

/** Port: the embedded database adapter implements it. */
export interface EmbeddedUpkeep {
  /** Tables with at least so many dead or changed rows and a fifth of the live ones, the most worn first. */
  worn(deadRowsMin: number): Promise<readonly WornTable[]>;
  mend(table: WornTable): Promise<void>;
  longLogs(bytesMin: number): Promise<readonly LongLog[]>;
  checkpoint(log: LongLog): Promise<void>;
}

export interface DatabaseUpkeepParts {
  readonly upkeep: EmbeddedUpkeep;
  /** Requests that are being served. */
  readonly openExchanges: () => number;
  readonly logger: Logger;
  readonly pauseMs?: number;
  readonly quietMs?: number;
  readonly deadRowsMin?: number;
  readonly logBytesMin?: number;
  /** Told how long each took. */
  readonly onMended?: (table: WornTable, durationMs: number) => void;
}

const pauseMsDefault = 30_000;
/** No request for so long is quiet. */
const quietMsDefault = 500;
const deadRowsMinDefault = 5_000;
/** Four segments: about half a second of replay, and 0.1 s of a checkpoint. */
const logBytesMinDefault = 64 * 1_024 * 1_024;
/** Times the least: from here on it is cut without waiting for a quiet moment. */
const pressingLog = 8;
/** After so many looks that found no quiet moment, the worst table is mended all the same. */
const unquietLooksMax = 20;

/** Runs until `signal` aborts. */
export async function runDatabaseUpkeep(parts: DatabaseUpkeepParts, signal: AbortSignal): Promise<void> {
  let unquiet = 0;
  while (!signal.aborted) {
    await pause(parts.pauseMs ?? pauseMsDefault, signal);
    if (signal.aborted) return;
    try {
      unquiet = await look(parts, signal, unquiet);
    } catch {
      parts.logger.warn({ component: 'upkeep' }, 'tables could not be vacuumed; tried again later');
    }
  }
}

interface Chore {
  /** Not to be put off. */
  readonly isPressing: boolean;
  run(): Promise<void>;
}

async function look(parts: DatabaseUpkeepParts, signal: AbortSignal, unquiet: number): Promise<number> {
  for (const chore of await choresOf(parts)) {
    const isQuiet = await quiet(parts, signal);
    if (signal.aborted) return unquiet;
    if (!(isQuiet || chore.isPressing) && unquiet < unquietLooksMax) return unquiet + 1;
    await chore.run();
    if (!isQuiet) return 0;
  }
  return 0;
}

async function choresOf(parts: DatabaseUpkeepParts): Promise<readonly Chore[]> {
  const { upkeep, logger, onMended, logBytesMin = logBytesMinDefault, deadRowsMin = deadRowsMinDefault } = parts;
  const logs = await upkeep.longLogs(logBytesMin);
  const tables = await upkeep.worn(deadRowsMin);
  return [
    ...logs.map((log) => ({
      isPressing: log.bytes >= pressingLog * logBytesMin,
      run: async () => {
        const durationMs = await timed(() => upkeep.checkpoint(log));
        logger.debug({ component: 'upkeep', durationMs }, 'cut a write-ahead log');
      },
    })),
    ...tables.map((table) => ({
      isPressing: false,
      run: async () => {
        const durationMs = await timed(() => upkeep.mend(table));
        logger.debug({ component: 'upkeep', durationMs, count: table.deadRows }, 'vacuumed a table');
        onMended?.(table, durationMs);
      },
    })),
  ];
}

async function timed(work: () => Promise<void>): Promise<number> {
  const startedMs = performance.now();
  await work();
  return Math.round(performance.now() - startedMs);
}

async function quiet({ openExchanges, quietMs = quietMsDefault }: DatabaseUpkeepParts, signal: AbortSignal): Promise<boolean> {
  for (let look = 0; look < 5; look++) {
    if (openExchanges() > 0) return false;
    await pause(quietMs / 5, signal);
  }
  return openExchanges() === 0;
}

async function pause(durationMs: number, signal: AbortSignal): Promise<void> {
  await wait(durationMs, undefined, { signal, ref: false }).catch(() => {});
}
