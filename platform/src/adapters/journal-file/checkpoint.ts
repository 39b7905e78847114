import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** Everything before this place is in the ledger. */
export interface Checkpoint {
  readonly segment: number;
  readonly offset: number;
}

const start: Checkpoint = { segment: 0, offset: 0 };

/**
 * The last checkpoint; the very beginning when there is none or it cannot be read. Too early a place is harmless, because the ledger
 * skips what it has, so a checkpoint is written without syncing and may be lost.
 */
export function readCheckpoint(directory: string): Checkpoint {
  try {
    const { segment, offset } = JSON.parse(readFileSync(checkpointPath(directory), 'utf8')) as Partial<Checkpoint>;
    return isPlace(segment) && isPlace(offset) ? { segment, offset } : start;
  } catch {
    return start;
  }
}

/** Replaces the checkpoint in one step. */
export function writeCheckpoint(directory: string, checkpoint: Checkpoint): void {
  const path = checkpointPath(directory);
  writeFileSync(`${path}.new`, JSON.stringify(checkpoint), { mode: 0o600 });
  renameSync(`${path}.new`, path);
}

function checkpointPath(directory: string): string {
  return join(directory, 'checkpoint.json');
}

function isPlace(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}
