/** `<dataDir>/server.json` (mode 0600): where the server on this data directory listens, for commands on the same machine. */
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export interface RunningServer {
  readonly pid: number;
  readonly baseUrl: string;
  readonly adminToken: string;
}

export function announceServer(dataDir: string, server: RunningServer): void {
  writeFileSync(fileOf(dataDir), `${JSON.stringify(server)}\n`, { mode: 0o600 });
}

export function withdrawServer(dataDir: string): void {
  rmSync(fileOf(dataDir), { force: true });
}

/** The server that runs on this data directory, if its process is alive. */
export function findRunningServer(dataDir: string): RunningServer | undefined {
  try {
    const server = JSON.parse(readFileSync(fileOf(dataDir), 'utf8')) as RunningServer;
    process.kill(server.pid, 0);
    return server;
  } catch {
    // No file, or its process has gone: nothing runs here.
    return undefined;
  }
}

function fileOf(dataDir: string): string {
  return join(dataDir, 'server.json');
}
