/**
 * The thread that runs embedded PostgreSQL: PGlite with pgvector, served over the wire protocol on a Unix socket. A statement blocks
 * this thread while it runs, so an unanswered ping is how the watchdog sees one that does not end.
 */
import { mkdirSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { PGlite } from '@electric-sql/pglite';
import { vector } from '@electric-sql/pglite-pgvector';
import { PGLiteSocketServer } from '@electric-sql/pglite-socket';

export interface EmbeddedWorkerData {
  readonly databaseDir: string;
  readonly socketPath: string;
  readonly connectionsMax: number;
}

export type EngineCommand = { readonly kind: 'ping'; readonly id: number } | { readonly kind: 'close' };
export type EngineReport = { readonly kind: 'ready' } | { readonly kind: 'pong'; readonly id: number } | { readonly kind: 'closed' };

const port = parentPort;
if (port === null) throw new Error('embedded-worker.ts runs as a worker thread');
const { databaseDir, socketPath, connectionsMax } = workerData as EmbeddedWorkerData;

mkdirSync(databaseDir, { recursive: true, mode: 0o700 });
const database = await PGlite.create({ dataDir: databaseDir, extensions: { vector } });
const canary = await database.query<{ readonly answer: number }>('SELECT 42 AS answer');
if (canary.rows[0]?.answer !== 42) throw new Error('the embedded database answers nothing: its files may be damaged');
const server = new PGLiteSocketServer({ db: database, path: socketPath, maxConnections: connectionsMax });
await server.start();

port.on('message', (command: EngineCommand) => {
  if (command.kind === 'ping') port.postMessage({ kind: 'pong', id: command.id } satisfies EngineReport);
  else void close();
});
port.postMessage({ kind: 'ready' } satisfies EngineReport);

async function close(): Promise<void> {
  await server.stop();
  await database.exec('CHECKPOINT');
  await database.close();
  port?.postMessage({ kind: 'closed' } satisfies EngineReport);
}
