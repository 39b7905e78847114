/** What a figure depends on and a reader needs: never a host name, a user or a path. */
import { execFileSync, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { availableParallelism, cpus, totalmem } from 'node:os';

export interface MachineFacts {
  readonly date: string;
  readonly commit: string;
  readonly cpuModel: string;
  readonly cores: number;
  readonly memoryGiB: number;
  readonly node: string;
  readonly pinning: string;
}

/** Linux: runs a command on the given processors (util-linux). */
export const pinCommand = 'taskset';

/** Where the parts may run, in `taskset` notation; undefined leaves a part to the system. */
export interface Pinning {
  readonly gateway: string | undefined;
  readonly load: string | undefined;
  readonly upstream: string | undefined;
  readonly text: string;
}

/** The measured gateway has processor 0 to itself, so that figures are per core; load and upstream share what else there is. */
export function choosePinning(): Pinning {
  const cores = availableParallelism();
  if (cores < 2 || !hasTaskset()) return { gateway: undefined, load: undefined, upstream: undefined, text: 'nothing pinned' };
  const upstream = cores > 2 ? '2' : '1';
  const text = `gateway on processor 0, load generator on 1, mock upstream on ${upstream} (taskset)`;
  return { gateway: '0', load: '1', upstream, text };
}

export function machineFacts(pinning: Pinning): MachineFacts {
  return {
    date: new Date().toISOString().slice(0, 10),
    commit: commitId(),
    cpuModel: cpus()[0]?.model ?? 'unknown',
    cores: availableParallelism(),
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    node: process.versions.node,
    pinning: pinning.text,
  };
}

/** Processor time a process has used in all its threads, in seconds. It counts the same however busy the machine is. */
export function processorSeconds(pid: number): number {
  if (process.platform !== 'linux') return Number.NaN;
  // proc(5): after the name in brackets comes field 3; utime and stime are fields 14 and 15, in ticks of 10 ms.
  const [, rest = ''] = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ');
  const fields = rest.split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

/** Resident memory of a process in MiB. */
export function residentMiB(pid: number): number {
  const kib = process.platform === 'linux' ? linuxResidentKib(pid) : Number(execFileSync('ps', ['-o', 'rss=', '-p', String(pid)]));
  return kib / 1_024;
}

function linuxResidentKib(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]);
}

function hasTaskset(): boolean {
  return spawnSync(pinCommand, ['--version']).status === 0;
}

function commitId(): string {
  const answer = spawnSync('git', ['rev-parse', '--short', 'HEAD'], { cwd: import.meta.dirname, encoding: 'utf8' });
  return answer.status === 0 ? answer.stdout.trim() : 'unknown';
}
