/** What the fairness benchmark uses over HTTP: its load tells refused, failed and late apart, and its other queue is one. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, it } from 'vitest';
import { FirstComeQueue } from '../../bench/fairness/first-come-queue.ts';
import type { LoadAnswer, OpenLoad, OpenLoadResult } from '../../bench/fairness/open-load.ts';
import type { Arrival } from '../../bench/fairness/outcome.ts';
import { outcomesOf } from '../../bench/fairness/over-http.ts';
import { runPart } from '../../bench/support/part.ts';
import { ManualClock } from '../../src/primitives/clock.ts';
import type { Permit } from '../../src/scheduler/fair-queue.ts';
import { ticketOf } from '../fairness/simulation.ts';

const directory = mkdtempSync(join(tmpdir(), 'open-load-'));
afterEach(() => rmSync(directory, { recursive: true, force: true }));

describe('the open load', () => {
  // Planted: an error's answer counted as served; a broken connection counted as refused.
  it('sends each request at its time with its own key, and tells served, refused, failed and cut off apart', async () => {
    const asked: { readonly key: string | undefined; readonly tokens: number }[] = [];
    const server = createServer((request, response) => {
      let text = '';
      request.on('data', (chunk: Buffer) => {
        text += chunk.toString();
      });
      request.on('end', () => {
        const body = JSON.parse(text) as { max_tokens: number; messages: readonly { content: string }[] };
        asked.push({ key: request.headers.authorization, tokens: body.max_tokens });
        const number = Number(/Request (\d+):/.exec(body.messages[0]?.content ?? '')?.[1]);
        if (number === 1) response.writeHead(429).end('{"error":{"code":"queue_full"}}');
        else if (number === 2) response.destroy();
        else if (number === 3) response.writeHead(502).end('{"error":{"code":"upstream_error"}}');
        else if (number === 0) {
          response.writeHead(200, { 'x-bulkhead-queue-ms': '12.5', 'x-bulkhead-upstream-ms': '30.0' });
          response.end('{"usage":{"prompt_tokens":20,"completion_tokens":7}}');
        }
      });
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    try {
      const arrivals: readonly Arrival[] = [0, 1, 2, 3, 4].map((index) => {
        return { tenant: index === 0 ? 'a' : 'b', weight: 1, atMs: 20 * index, inputTokens: 20, outputTokens: 7 };
      });
      const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
      const answersFile = join(directory, 'answers.json');
      const load: OpenLoad = { url, model: 'bench', keys: { a: 'key-a', b: 'key-b' }, arrivals, drainMs: 1_500, answersFile };
      writeFileSync(join(directory, 'load.json'), JSON.stringify(load));
      const script = fileURLToPath(new URL('../../bench/fairness/open-load.ts', import.meta.url));
      const args = [join(directory, 'load.json')];
      const signal = AbortSignal.timeout(60_000);
      const result = await runPart<OpenLoadResult>({ name: 'open load', script, args, withinMs: 60_000, signal });
      expect(result).toMatchObject({ sent: 5, cutOff: 1 });
      expect(asked.filter(({ key }) => key === 'Bearer key-a')).toEqual([{ key: 'Bearer key-a', tokens: 7 }]);
      const answers = JSON.parse(readFileSync(answersFile, 'utf8')) as readonly LoadAnswer[];
      const outcomes = outcomesOf(arrivals, answers);
      // Those that failed are no outcomes: neither served nor refused.
      expect(outcomes.map(({ served, refused }) => (served ? 'served' : (refused?.cause ?? 'open')))).toEqual([
        'served',
        'queue_full',
        'open',
      ]);
      const [first] = outcomes;
      expect((first?.served?.startedAtMs ?? 0) - (first?.atMs ?? 0)).toBeCloseTo(12.5);
      expect(answers.filter(({ status }) => status === 0 || status === 502).map(({ code }) => code)).toContain('upstream_error');
    } finally {
      server.closeAllConnections();
      server.close();
    }
  });
});

describe('first come, first served behind the port', () => {
  const open = (waitMaxMs = 1_000) => {
    const clock = new ManualClock();
    const queue = new FirstComeQueue({ clock, waitMaxMs, requestsPerTenantMax: 1, bytesMax: 1 });
    queue.setCapacity('pool', 1);
    return { clock, queue };
  };
  const ticket = (tenant: string) => ticketOf({ tenant, input: 1, output: 1 });
  const forever = new AbortController().signal;
  const ended = { inputTokens: 1, outputTokens: 1 };

  // Planted: the newest first; a permit that does not come back.
  it('lets requests in as they came, whoever sent them, one for each permit', async () => {
    const { queue } = open();
    const order: string[] = [];
    const running = await queue.acquire(ticket('aa'), forever);
    const waiting = ['bb', 'aa', 'aa', 'cc'].map(async (tenant) => {
      const permit = await queue.acquire(ticket(tenant), forever);
      order.push(tenant);
      permit.finish(ended);
    });
    expect(queue.snapshot()[0]).toMatchObject({ capacity: 1, inFlight: 1, queued: 4 });
    running.finish(ended);
    running.finish(ended);
    await Promise.all(waiting);
    expect(order).toEqual(['bb', 'aa', 'aa', 'cc']);
    expect(queue.snapshot()[0]).toMatchObject({ inFlight: 0, queued: 0 });
    queue.close();
  });

  // Planted: an aborted request keeps its place.
  it('forgets whoever leaves, and refuses at the deadline, beyond its bound and when it closes', async () => {
    const { queue, clock } = open();
    const running = await queue.acquire(ticket('aa'), forever);
    const leaving = new AbortController();
    const left = queue.acquire(ticket('bb'), leaving.signal);
    const late = queue.acquire(ticket('cc'), forever);
    leaving.abort(new Error('gone'));
    await expect(left).rejects.toThrow('gone');
    expect(queue.snapshot()[0]?.queued).toBe(1);
    clock.advance(999);
    const onTime: Promise<Permit> = queue.acquire(ticket('dd'), forever);
    clock.advance(1);
    const many = Array.from({ length: 2_001 }, () => queue.acquire(ticket('ee'), forever).catch((error: { code: string }) => error.code));
    await expect(late).rejects.toMatchObject({ code: 'queue_timeout' });
    running.cancel();
    (await onTime).finish(ended);
    queue.close();
    const codes = Map.groupBy(await Promise.all(many), String);
    expect(codes.has('queue_full') && codes.has('shutting_down')).toBe(true);
    await expect(queue.acquire(ticket('ff'), AbortSignal.abort(new Error('before')))).rejects.toThrow('before');
  });
});
