/**
 * Embedded PostgreSQL: a worker thread with a watchdog. The thread is killed and opened again when it leaves pings unanswered for
 * longer than a statement may take (PGlite does not enforce `statement_timeout`); callers see a lost connection then, later calls
 * work. `fsync` is off in PGlite: what was acknowledged survives `kill -9`, not a power cut.
 */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { BulkheadError } from '../../errors/bulkhead-error.ts';
import type { Logger } from '../../telemetry/logger.ts';
import type { EmbeddedWorkerData, EngineCommand, EngineReport } from './embedded-worker.ts';

export interface EmbeddedEngineOptions {
  readonly dataDir: string;
  /** A statement that runs longer ends with the engine's restart. */
  readonly queryTimeoutMs: number;
  readonly logger: Logger;
  readonly connectionsMax?: number;
}

const pingEveryMs = 500;
const openTimeoutMs = 60_000;
const closeTimeoutMs = 10_000;
const socketName = '.s.PGSQL.5432';
/** `sun_path` holds 108 bytes on Linux, its end mark included. */
const socketPathBytesMax = 107;

export class EmbeddedEngine implements AsyncDisposable {
  /** What a PostgreSQL client takes as `host`. */
  readonly socketDir: string;
  readonly #options: EmbeddedEngineOptions;
  readonly #ownsSocketDir: boolean;
  #worker: Worker | undefined;
  #watchdog: NodeJS.Timeout | undefined;
  #lastPongAt = 0;
  #pingId = 0;
  #mode: 'opening' | 'open' | 'restarting' | 'closed' = 'opening';
  #restarted: Promise<void> = Promise.resolve();

  private constructor(options: EmbeddedEngineOptions) {
    this.#options = options;
    const preferred = join(options.dataDir, 'pg');
    this.#ownsSocketDir = Buffer.byteLength(join(preferred, socketName)) > socketPathBytesMax;
    this.socketDir = this.#ownsSocketDir ? mkdtempSync(join(tmpdir(), 'bulkhead-')) : preferred;
    mkdirSync(this.socketDir, { recursive: true, mode: 0o700 });
  }

  static async open(options: EmbeddedEngineOptions): Promise<EmbeddedEngine> {
    const engine = new EmbeddedEngine(options);
    await engine.#start();
    return engine;
  }

  /** Resolves when the engine is open, at once or after a running restart. */
  whenOpen(): Promise<void> {
    return this.#restarted;
  }

  async close(): Promise<void> {
    if (this.#mode === 'closed') return;
    await this.#restarted.catch(() => {});
    this.#mode = 'closed';
    clearInterval(this.#watchdog);
    const worker = this.#worker;
    if (worker !== undefined) {
      const closed = reportOf(worker, 'closed', closeTimeoutMs);
      worker.postMessage({ kind: 'close' } satisfies EngineCommand);
      // A thread that cannot close in time is killed: the write-ahead log brings it back as it was.
      await closed.catch(() => this.#options.logger.warn({ component: 'database' }, 'the embedded database did not close in time'));
      await worker.terminate();
    }
    rmSync(join(this.socketDir, socketName), { force: true });
    if (this.#ownsSocketDir) rmSync(this.socketDir, { recursive: true, force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #start(): Promise<void> {
    const socketPath = join(this.socketDir, socketName);
    rmSync(socketPath, { force: true });
    const workerData: EmbeddedWorkerData = {
      databaseDir: join(this.#options.dataDir, 'pgdata'),
      socketPath,
      connectionsMax: this.#options.connectionsMax ?? 64,
    };
    const worker = new Worker(new URL('./embedded-worker.ts', import.meta.url), { workerData, execArgv: [] });
    this.#worker = worker;
    await reportOf(worker, 'ready', openTimeoutMs);
    this.#lastPongAt = performance.now();
    worker.on('message', (report: EngineReport) => {
      if (report.kind === 'pong') this.#lastPongAt = performance.now();
    });
    worker.once('exit', () => this.#onExit(worker));
    this.#mode = 'open';
    this.#watchdog = setInterval(() => this.#watch(worker), pingEveryMs);
    this.#watchdog.unref();
  }

  #watch(worker: Worker): void {
    if (this.#mode !== 'open') return;
    if (performance.now() - this.#lastPongAt > this.#options.queryTimeoutMs + pingEveryMs) {
      this.#options.logger.error({ component: 'database' }, 'a statement ran too long: restarting the embedded database');
      void worker.terminate();
      return;
    }
    worker.postMessage({ kind: 'ping', id: ++this.#pingId } satisfies EngineCommand);
  }

  #onExit(worker: Worker): void {
    if (this.#mode === 'closed' || worker !== this.#worker) return;
    this.#mode = 'restarting';
    clearInterval(this.#watchdog);
    this.#restarted = this.#start().catch((error: unknown) => {
      this.#mode = 'closed';
      this.#options.logger.error({ component: 'database' }, 'the embedded database could not be opened again');
      throw new BulkheadError('database_unavailable', 'The database cannot be opened again; restart the server.', { cause: error });
    });
    this.#restarted.catch(() => {});
  }
}

function reportOf(worker: Worker, kind: EngineReport['kind'], timeoutMs: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const onMessage = (report: EngineReport) => {
      if (report.kind === kind) end(resolve);
    };
    const onError = (error: unknown) => end(() => reject(error));
    const onExit = () => end(() => reject(new Error('the embedded database ended')));
    const timer = setTimeout(() => end(() => reject(new Error(`the embedded database was not ${kind} within ${timeoutMs} ms`))), timeoutMs);
    const end = (settle: () => void) => {
      clearTimeout(timer);
      worker.off('message', onMessage).off('error', onError).off('exit', onExit);
      settle();
    };
    worker.on('message', onMessage).on('error', onError).on('exit', onExit);
  });
}
