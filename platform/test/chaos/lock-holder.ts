/** Takes the lock of the data directory, says so, and waits to be ended. */
import { DataDirectoryLock } from '../../src/adapters/postgres/data-directory-lock.ts';

try {
  DataDirectoryLock.acquire(process.argv[2] ?? '');
  process.stdout.write('held\n');
  setInterval(() => {}, 1_000);
} catch (error) {
  process.stdout.write(`${(error as Error).message}\n`);
}
