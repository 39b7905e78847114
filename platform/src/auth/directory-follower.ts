/** Sees what other processes changed in the directory: polls the change feed every 2 s, so a revocation is seen everywhere within 5 s. */
import type { Logger } from '../telemetry/logger.ts';
import type { DirectoryChange, TenantDirectory } from '../tenancy/tenant-directory.ts';

export interface FollowerParts {
  readonly directory: TenantDirectory;
  readonly onChange: (change: DirectoryChange) => void;
  /** The feed could not be read for so long that nothing cached may be trusted. */
  readonly onLost: () => void;
  readonly logger: Logger;
  readonly everyMs?: number;
}

export interface DirectoryFollower {
  /** Reads the feed now; in the process that made a change, so that it is seen at once. */
  catchUp(): Promise<void>;
  close(): Promise<void>;
}

const everyMsDefault = 2_000;
const failuresMax = 2;

/** Starts after the newest change there is. */
export async function followDirectory(parts: FollowerParts): Promise<DirectoryFollower> {
  const { directory, onChange, onLost, logger } = parts;
  let sequence = await directory.latestSequence();
  let failures = 0;
  let running: Promise<void> = Promise.resolve();
  const read = async () => {
    try {
      for (let changes = await directory.changesSince(sequence); changes.length > 0; changes = await directory.changesSince(sequence)) {
        for (const change of changes) {
          onChange(change);
          sequence = change.sequence;
        }
      }
      failures = 0;
    } catch {
      failures++;
      logger.warn({ component: 'directory', count: failures }, 'the change feed cannot be read');
      if (failures >= failuresMax) onLost();
    }
  };
  const catchUp = () => {
    running = running.then(read);
    return running;
  };
  const timer = setInterval(() => void catchUp(), parts.everyMs ?? everyMsDefault);
  timer.unref();
  return {
    catchUp,
    async close() {
      clearInterval(timer);
      await running;
    },
  };
}
