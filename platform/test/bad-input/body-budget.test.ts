/** The bodies in memory, all together, have a bound; what was taken comes back on every way out. */
import { connect } from 'node:net';
import { describe, expect, it } from 'vitest';
import { BulkheadError } from '../../src/errors/bulkhead-error.ts';
import { expectError, otherSecret, secret, startEdge, tenantPost } from './support/test-edge.ts';

const bytesMax = 4_000;
const half = bytesMax / 2;

function gated() {
  const { promise: open, resolve: release } = Promise.withResolvers<void>();
  let waiting = 0;
  const route = tenantPost('/v1/hold', async ({ body }) => {
    waiting++;
    await open;
    if (body['fail'] === true) throw new BulkheadError('not_ready', 'asked to fail');
    if (body['crash'] === true) throw new Error('unforeseen');
    return {};
  });
  return { route, release, waiting: () => waiting };
}

/** A JSON object of exactly so many bytes. */
function bodyOf(bytes: number, fields: Readonly<Record<string, unknown>> = {}): string {
  const empty = JSON.stringify({ ...fields, x: '' });
  return JSON.stringify({ ...fields, x: 'a'.repeat(bytes - empty.length) });
}

async function startHolding() {
  const gate = gated();
  const edge = await startEdge({ routes: [gate.route], bounds: { bodyBytesInFlightMax: bytesMax, bodyBytesMax: half } });
  const send = async (credential: string, body: string | ReadableStream) => {
    const headers = { authorization: `Bearer ${credential}`, 'content-type': 'application/json' };
    const answer = await fetch(`${edge.url}/v1/hold`, { method: 'POST', headers, body, duplex: 'half' } as RequestInit);
    return { status: answer.status, headers: Object.fromEntries(answer.headers), body: await answer.text() };
  };
  const held = (count: number) => expect.poll(gate.waiting).toBe(count);
  return { edge, gate, send, held };
}

function chunked(text: string): ReadableStream {
  return new Blob([text]).stream();
}

describe('bodies in memory', () => {
  it.each([
    ['declared', (text: string) => text],
    ['chunked', chunked],
  ] as const)('are accepted up to the bound and refused one byte beyond it: %s', async (_, form) => {
    const { edge, gate, send, held } = await startHolding();
    await using _edge = edge;
    const first = send(secret, bodyOf(half));
    await held(1);
    const second = send(otherSecret, bodyOf(half - 100));
    await held(2);
    const refused = await send(otherSecret, form(bodyOf(101)));
    expectError(refused, { status: 503, code: 'capacity_unavailable' });
    expect(refused.headers['retry-after']).toBe('1');
    const fits = send(otherSecret, form(bodyOf(100)));
    await held(3);
    gate.release();
    expect((await Promise.all([first, second, fits])).map(({ status }) => status)).toEqual([200, 200, 200]);
  });

  it('of one tenant leave half to the others', async () => {
    const { edge, gate, send, held } = await startHolding();
    await using _edge = edge;
    const whole = send(secret, bodyOf(half));
    await held(1);
    const refused = await send(secret, bodyOf(20));
    expectError(refused, { status: 503, code: 'capacity_unavailable' });
    expect(refused.body).toContain('"limit":"tenant.body_bytes"');
    const other = send(otherSecret, bodyOf(half));
    await held(2);
    gate.release();
    expect((await Promise.all([whole, other])).map(({ status }) => status)).toEqual([200, 200]);
  });

  it.each([
    ['an answer', {}, 200],
    ['an error', { fail: true }, 400],
    ['a crash', { crash: true }, 500],
  ])('are given back after %s', async (_, fields, status) => {
    const { edge, gate, send } = await startHolding();
    await using _edge = edge;
    gate.release();
    for (let count = 0; count < 5; count++) expect((await send(secret, bodyOf(half, fields))).status).toBe(status);
  });

  it('are given back after what is not JSON, is too large, or is never finished', async () => {
    const { edge, gate, send } = await startHolding();
    await using _edge = edge;
    gate.release();
    for (let count = 0; count < 5; count++) {
      expect((await send(secret, 'x'.repeat(half))).status).toBe(400);
      expect((await send(secret, chunked(bodyOf(half + 1)))).status).toBe(413);
      await leaveInTheMiddle(edge.port);
    }
    await expect.poll(async () => (await send(secret, bodyOf(half))).status).toBe(200);
    expect((await send(otherSecret, bodyOf(half))).status).toBe(200);
  });
});

/** Declares a body that takes the tenant's half, sends most of it, and hangs up. */
function leaveInTheMiddle(port: number): Promise<void> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => {
      const head = `POST /v1/hold HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${secret}\r\nContent-Type: application/json\r\n`;
      socket.write(`${head}Content-Length: ${half}\r\n\r\n${'x'.repeat(half - 1)}`, () => setTimeout(() => socket.destroy(), 20));
    });
    socket.on('close', () => resolve()).on('error', () => resolve());
  });
}
