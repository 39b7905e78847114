/**
 * Starts and stops the parts of a benchmark. Each part is a process of its own on loopback, so that measuring costs the measured
 * process nothing; each is stopped by its id, and every wait has a limit.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { pinCommand } from './machine.ts';

const readyWithinMs = 60_000;
const stopWithinMs = 15_000;
const logCharactersMax = 20_000;

export interface PartOptions {
  readonly name: string;
  /** Script beside this file, or an absolute path. */
  readonly script: string;
  readonly args?: readonly string[];
  /** Options of Node itself, for example `--cpu-prof`. */
  readonly nodeOptions?: readonly string[];
  /** Processors the part may run on, in `taskset` notation; undefined leaves it to the system. */
  readonly cpus?: string | undefined;
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
}

export interface RunningPart extends AsyncDisposable {
  readonly name: string;
  readonly pid: number;
  /** Origin it listens on, without a trailing slash. */
  readonly url: string;
  /** The end of what it wrote to standard error. */
  log(): string;
  stop(): Promise<void>;
}

interface Child {
  readonly process: ChildProcess;
  readonly log: () => string;
}

/**
 * Starts a server and waits until it names its address.
 * @param urlOf - the address in a line of its standard output, or undefined when the line is about something else.
 */
export async function startPart(options: PartOptions, urlOf: (line: string) => string | undefined = readyUrl): Promise<RunningPart> {
  const child = launch(options);
  const stop = () => endProcess(child.process);
  try {
    const url = await firstUrl(child, options.name, urlOf);
    const pid = child.process.pid ?? 0;
    return { name: options.name, pid, url, log: child.log, stop, [Symbol.asyncDispose]: stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** Runs a part to its end and returns the JSON of its last line of output. */
export async function runPart<Result>(options: PartOptions & { readonly withinMs: number; readonly signal: AbortSignal }): Promise<Result> {
  const child = launch(options);
  let last = '';
  const lines = createInterface({ input: outputOf(child.process) });
  lines.on('line', (line) => {
    last = line;
  });
  const abort = AbortSignal.any([options.signal, AbortSignal.timeout(Math.ceil(options.withinMs))]);
  const onAbort = () => void endProcess(child.process);
  abort.addEventListener('abort', onAbort);
  const closed = new Promise((resolve) => lines.once('close', resolve));
  const code = await exitOf(child.process);
  await closed;
  abort.removeEventListener('abort', onAbort);
  if (code !== 0) throw new Error(`${options.name} ended with code ${code}${abort.aborted ? ' (stopped)' : ''}:\n${child.log()}`);
  return JSON.parse(last) as Result;
}

function launch(options: PartOptions): Child {
  const script = options.script.startsWith('/') ? options.script : fileURLToPath(new URL(options.script, import.meta.url));
  const node = [process.execPath, ...(options.nodeOptions ?? []), script, ...(options.args ?? [])];
  const [command = '', ...args] = options.cpus === undefined ? node : [pinCommand, '-c', options.cpus, ...node];
  // taskset replaces itself by the command, so the child's id is the part's own. An open standard input is the sign of life our own
  // parts watch: they end when this process is gone, however it went.
  const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'], cwd: options.cwd, env: options.env });
  let log = '';
  child.stderr.on('data', (chunk: Buffer) => {
    log = (log + chunk.toString()).slice(-logCharactersMax);
  });
  return { process: child, log: () => log };
}

function firstUrl(child: Child, name: string, urlOf: (line: string) => string | undefined): Promise<string> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`${name} was not ready within ${readyWithinMs} ms:\n${child.log()}`)), readyWithinMs);
    child.process.once('error', reject);
    child.process.once('exit', (code) => {
      clearTimeout(timer);
      reject(new Error(`${name} ended with code ${code} before it was ready:\n${child.log()}`));
    });
    createInterface({ input: outputOf(child.process) }).on('line', (line) => {
      const url = urlOf(line);
      if (url === undefined) return;
      clearTimeout(timer);
      resolve(url);
    });
  });
}

function outputOf(child: ChildProcess): NodeJS.ReadableStream {
  if (child.stdout === null) throw new Error('the part was started without an output pipe');
  return child.stdout;
}

function readyUrl(line: string): string | undefined {
  return /^\{"ready":true,"url":"([^"]+)"/.exec(line)?.[1];
}

function exitOf(child: ChildProcess): Promise<number | null> {
  if (hasEnded(child)) return Promise.resolve(child.exitCode);
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', resolve);
  });
}

async function endProcess(child: ChildProcess): Promise<void> {
  if (hasEnded(child)) return;
  const ended = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), stopWithinMs);
  await ended;
  clearTimeout(timer);
}

function hasEnded(child: ChildProcess): boolean {
  return child.pid === undefined || child.exitCode !== null || child.signalCode !== null;
}
