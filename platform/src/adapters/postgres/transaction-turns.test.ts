import { setImmediate as settled } from 'node:timers/promises';
import { beforeEach, describe, expect, it } from 'vitest';
import { ManualClock } from '../../primitives/clock.ts';
import { TransactionTurns } from './transaction-turns.ts';

let clock: ManualClock;
let turns: TransactionTurns;
let order: string[];
let waiting: (() => void)[];
beforeEach(() => {
  clock = new ManualClock();
  waiting = [];
  order = [];
  turns = new TransactionTurns({ waitMaxMs: 50, clock, wait: () => new Promise<void>((resolve) => waiting.push(resolve)) });
});

async function pass(ms: number): Promise<void> {
  for (let passed = 0; passed < ms; passed++) {
    clock.advance(1);
    for (const resolve of waiting.splice(0)) resolve();
    await settled();
  }
}

/** Work that notes when it begins and lasts until it is ended. */
function work(name: string) {
  const ended = Promise.withResolvers<void>();
  const run = async () => {
    order.push(name);
    await ended.promise;
  };
  return { run, end: ended.resolve };
}

describe('work behind the requests', () => {
  it('begins at once while no request is about', async () => {
    const index = work('index');
    const indexing = turns.background(index.run);
    await settled();
    expect(order).toEqual(['index']);
    index.end();
    await indexing;
  });

  it('waits for a request and for its next statement', async () => {
    const [first, second, index] = [work('first'), work('second'), work('index')];
    const statement = turns.interactive(first.run);
    const indexing = turns.background(index.run);
    await pass(5);
    first.end();
    await statement;
    await pass(2);
    const next = turns.interactive(second.run);
    await pass(5);
    second.end();
    await next;
    await pass(2);
    expect(order).toEqual(['first', 'second']);
    await pass(1);
    expect(order).toEqual(['first', 'second', 'index']);
    index.end();
    await indexing;
  });

  it('waits for other such work', async () => {
    const [index, other] = [work('index'), work('other')];
    const indexing = turns.background(index.run);
    const following = turns.background(other.run);
    await pass(10);
    expect(order).toEqual(['index']);
    index.end();
    await indexing;
    await pass(1);
    expect(order).toEqual(['index', 'other']);
    other.end();
    await following;
  });

  it('begins after its longest wait however long requests are about', async () => {
    const [request, index] = [work('request'), work('index')];
    const answering = turns.interactive(request.run);
    const indexing = turns.background(index.run);
    await pass(49);
    expect(order).toEqual(['request']);
    await pass(1);
    expect(order).toEqual(['request', 'index']);
    request.end();
    index.end();
    await Promise.all([answering, indexing]);
  });

  it('leaves the turn when it fails, as a request does', async () => {
    await expect(turns.background(() => Promise.reject(new Error('lost')))).rejects.toThrow('lost');
    await expect(turns.interactive(() => Promise.reject(new Error('lost')))).rejects.toThrow('lost');
    clock.advance(3);
    await expect(turns.background(async () => 'begun')).resolves.toBe('begun');
    expect(waiting).toEqual([]);
  });
});
