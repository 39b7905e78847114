/**
 * Keeps the embedded databases in order: without it dead rows are never removed, tables only grow, and the planner knows nothing of them. One table at a
 * time, when nobody has asked for anything for a moment; a table that is worn out is mended even if it is never quiet.
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

/** Port: the embedded database adapter implements it. */
export interface TableUpkeep {
  /** Tables with at least so many dead or changed rows and a fifth of the live ones, the most worn first. */
  worn(deadRowsMin: number): Promise<readonly WornTable[]>;
  mend(table: WornTable): Promise<void>;
}

export interface DatabaseUpkeepParts {
  readonly upkeep: TableUpkeep;
  /** Requests that are being served. */
  readonly openExchanges: () => number;
  readonly logger: Logger;
  readonly pauseMs?: number;
  readonly quietMs?: number;
  readonly deadRowsMin?: number;
  /** Told how long each took. */
  readonly onMended?: (table: WornTable, durationMs: number) => void;
}

const pauseMsDefault = 30_000;
/** No request for so long is quiet. */
const quietMsDefault = 500;
const deadRowsMinDefault = 5_000;
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

async function look(parts: DatabaseUpkeepParts, signal: AbortSignal, unquiet: number): Promise<number> {
  const { upkeep, logger, onMended } = parts;
  for (const table of await upkeep.worn(parts.deadRowsMin ?? deadRowsMinDefault)) {
    const isQuiet = await quiet(parts, signal);
    if (signal.aborted) return unquiet;
    if (!isQuiet && unquiet < unquietLooksMax) return unquiet + 1;
    const startedMs = performance.now();
    await upkeep.mend(table);
    const durationMs = Math.round(performance.now() - startedMs);
    logger.debug({ component: 'upkeep', durationMs, count: table.deadRows }, 'vacuumed a table');
    onMended?.(table, durationMs);
    if (!isQuiet) return 0;
  }
  return 0;
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
