/** Many operations of many tenants at once, by a seed. What they find is counted; the first few are kept as text. */
import { seededRandom } from '../../src/primitives/random.ts';
import { type Findings, operations, pick } from './isolation-operations.ts';
import { IsolationWorld, type WorldOptions } from './isolation-world.ts';

export interface SoakOptions {
  readonly operations: number;
  readonly seed: number;
  readonly tenants?: number;
  readonly clients?: number;
  readonly searchesOf?: WorldOptions['searchesOf'];
  /** After the world is made: for a fault on purpose. */
  readonly plant?: (world: IsolationWorld) => Promise<void>;
  /** Every so many operations. */
  readonly onProgress?: (report: SoakReport) => void;
  readonly signal?: AbortSignal;
}

export interface SoakReport {
  readonly operations: number;
  readonly byKind: Readonly<Record<string, number>>;
  /** Searches that were answered from memory, the others from the database. */
  readonly fromMemory: number;
  readonly foreign: number;
  readonly short: number;
  readonly wrong: number;
  /** The first findings of each kind. */
  readonly examples: readonly string[];
  readonly seconds: number;
}

const examplesMax = 20;
const progressEvery = 10_000;

export async function soakIsolation(options: SoakOptions): Promise<SoakReport> {
  const random = seededRandom(options.seed);
  const { searchesOf, tenants = 40, clients = 8, plant } = options;
  await using world = await IsolationWorld.open({ tenants, random, searchesOf });
  await plant?.(world);
  const tally = new Tally();
  let left = options.operations;
  const client = async () => {
    while (left-- > 0 && options.signal?.aborted !== true) {
      const [name, , operation] = chosen(random.next());
      const [me, other] = pair(world, random.next(), random.next());
      await tally.count(name, (findings) => operation({ world, random, me, other, findings }));
      if (tally.operations % progressEvery === 0) options.onProgress?.(tally.report(world.fromMemory));
    }
  };
  await Promise.all(Array.from({ length: clients }, client));
  return tally.report(world.fromMemory);
}

class Tally {
  operations = 0;
  readonly #startedMs = performance.now();
  readonly #byKind = new Map<string, number>();
  readonly #totals = { foreign: 0, short: 0, wrong: 0 };
  readonly #examples: string[] = [];

  async count(name: string, operation: (findings: Findings) => Promise<void>): Promise<void> {
    const findings: Findings = { foreign: [], short: [], wrong: [] };
    try {
      await operation(findings);
    } catch (error) {
      findings.wrong.push(`${name}: ${error instanceof Error ? error.message : String(error)}`);
    }
    this.operations++;
    this.#byKind.set(name, (this.#byKind.get(name) ?? 0) + 1);
    for (const kind of ['foreign', 'short', 'wrong'] as const) {
      this.#totals[kind] += findings[kind].length;
      for (const text of findings[kind]) if (this.#examples.length < examplesMax) this.#examples.push(`${kind}: ${text}`);
    }
  }

  report(fromMemory: number): SoakReport {
    return {
      fromMemory,
      operations: this.operations,
      byKind: Object.fromEntries(this.#byKind),
      ...this.#totals,
      examples: this.#examples,
      seconds: (performance.now() - this.#startedMs) / 1_000,
    };
  }
}

const total = operations.reduce((sum, [, weight]) => sum + weight, 0);

function chosen(chance: number): (typeof operations)[number] {
  let left = chance * total;
  const found = operations.find(([, weight]) => {
    left -= weight;
    return left < 0;
  });
  if (found === undefined) throw new Error('the weights do not add up');
  return found;
}

function pair(world: IsolationWorld, first: number, second: number) {
  const { members } = world;
  const me = members[Math.floor(first * members.length)];
  const other = pick(
    members.filter((member) => member !== me),
    { next: () => second },
  );
  if (me === undefined || other === undefined) throw new Error('isolation needs two tenants');
  return [me, other] as const;
}
