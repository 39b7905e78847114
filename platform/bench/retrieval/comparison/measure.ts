/** One system, measured: recall against brute force, latency by tenant size, searches a second, memory. */
import { residentMiB } from '../../support/machine.ts';
import type { ClassResult, Latency, SearchSystem, SystemOptions, SystemResult } from './system.ts';
import { trueNearest } from './true-nearest.ts';
import { type Question, sizeClasses, Workload } from './workload.ts';

const limit = 10;
const coldTenants = 5;
/** What the demands on latency and on the first search are about. */
const sizeMax = 10_000;

export async function measureSystem(system: SearchSystem, options: SystemOptions): Promise<SystemResult> {
  const workload = new Workload(options);
  const started = performance.now();
  await system.load(workload);
  const loadSeconds = (performance.now() - started) / 1_000;
  const afterLoadMiB = ownMiB();
  const coldMs = await firstSearches(system, workload);
  const classes: ClassResult[] = [];
  for (const sizeClass of sizeClasses) {
    const questions = workload.questionsOf(sizeClass, options.questionsPerClass);
    if (questions.length > 0) classes.push(await measureClass(system, workload, questions));
  }
  const upTo10k = await measureUpTo10k(system, workload.questionsUpTo(sizeMax, options.questionsPerClass * sizeClasses.length));
  const mixed = workload.questions(options.questionsPerClass * sizeClasses.length);
  await askOnce(system, mixed);
  const perSecondAlone = await searchesPerSecond(system, mixed, { clients: 1, seconds: options.secondsPerRound });
  const perSecondTogether = await searchesPerSecond(system, mixed, { clients: options.concurrency, seconds: options.secondsPerRound });
  const memory = {
    afterLoadMiB,
    warmMiB: ownMiB(),
    serverMiB: await system.serverMiB?.(),
    diskMiB: await system.diskMiB?.(),
    heldMiB: system.heldMiB?.(),
    rawMiB: rawMiB(workload, mixed, options.questionsPerClass),
  };
  const { system: name, dimensions } = options;
  return { system: name, dimensions, loadSeconds, classes, upTo10k, coldMs, perSecondAlone, perSecondTogether, memory };
}

async function measureClass(system: SearchSystem, workload: Workload, questions: readonly Question[]): Promise<ClassResult> {
  let [hits, possible, short] = [0, 0, 0];
  // By tenant, so that each one's vectors are made once.
  for (const question of questions.toSorted((left, right) => left.tenant.rank - right.tenant.rank)) {
    const found = await system.search(question, limit);
    const truth = trueNearest(workload, question, limit);
    hits += truth.hitsOf(found);
    possible += truth.possible;
    if (found.length < truth.possible) short++;
  }
  await system.settled?.();
  const { p50, p99 } = await latencies(questions, (question) => system.search(question, limit));
  const { hybrid } = system;
  const [first] = questions;
  return {
    sizeClass: first?.tenant.sizeClass ?? '',
    tenants: new Set(questions.map(({ tenant }) => tenant.rank)).size,
    questions: questions.length,
    recall: system.hasRecall === false ? undefined : hits / possible,
    short,
    p50,
    p99,
    ...(hybrid && { hybrid: await latencies(questions, (question) => hybrid(question, limit)) }),
  };
}

async function measureUpTo10k(system: SearchSystem, questions: readonly Question[]): Promise<SystemResult['upTo10k']> {
  await askOnce(system, questions);
  const vector = await latencies(questions, (question) => system.search(question, limit));
  const { hybrid } = system;
  return { vector, hybrid: hybrid && (await latencies(questions, (question) => hybrid(question, limit))) };
}

/** So that what is measured next is warm. */
async function askOnce(system: SearchSystem, questions: readonly Question[]): Promise<void> {
  for (const question of questions) await system.search(question, limit);
  await system.settled?.();
}

async function firstSearches(system: SearchSystem, workload: Workload): Promise<number | undefined> {
  const tenants = workload.tenants.filter(({ size }) => size <= sizeMax).slice(0, coldTenants);
  const questions = workload.questionsOf(tenants[0]?.sizeClass ?? 'to 100', 1);
  let slowest: number | undefined;
  for (const tenant of tenants) {
    const [question] = questions;
    if (question === undefined) continue;
    await system.forget?.(tenant);
    const from = performance.now();
    await system.search({ ...question, tenant }, limit);
    slowest = Math.max(slowest ?? 0, performance.now() - from);
  }
  return slowest;
}

async function latencies(questions: readonly Question[], search: (question: Question) => Promise<unknown>): Promise<Latency> {
  const times: number[] = [];
  for (const question of questions) {
    const from = performance.now();
    await search(question);
    times.push(performance.now() - from);
  }
  const sorted = times.toSorted((left, right) => left - right);
  return { p50: sorted[Math.floor(sorted.length * 0.5)] ?? 0, p99: sorted[Math.floor(sorted.length * 0.99)] ?? 0 };
}

async function searchesPerSecond(
  system: SearchSystem,
  questions: readonly Question[],
  { clients, seconds }: { readonly clients: number; readonly seconds: number },
): Promise<number> {
  let [next, done] = [0, 0];
  const from = performance.now();
  const untilMs = from + seconds * 1_000;
  const client = async () => {
    while (performance.now() < untilMs) {
      const question = questions[next++ % questions.length];
      if (question === undefined) return;
      await system.search(question, limit);
      done++;
    }
  };
  await Promise.all(Array.from({ length: clients }, client));
  return (done / (performance.now() - from)) * 1_000;
}

function rawMiB(workload: Workload, mixed: readonly Question[], perClass: number): number {
  const asked = [...mixed, ...sizeClasses.flatMap((sizeClass) => workload.questionsOf(sizeClass, perClass))];
  const tenants = new Map(asked.map(({ tenant }) => [tenant.rank, tenant.size]));
  return ([...tenants.values()].reduce((sum, size) => sum + size, 0) * workload.options.dimensions * 4) / 2 ** 20;
}

function ownMiB(): number {
  globalThis.gc?.();
  return residentMiB(process.pid);
}
