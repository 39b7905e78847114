/** Item 85: Idempotency-Key. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { expectError, otherSecret, secret, startEdge, type TestEdge, tenantPost } from './support/test-edge.ts';

let edge: TestEdge;
let runs = 0;
let gate: PromiseWithResolvers<void> | undefined;
let failure: Error | undefined;

beforeEach(async () => {
  runs = 0;
  gate = undefined;
  failure = undefined;
  const route = tenantPost('/v1/count', async ({ body }) => {
    const run = ++runs;
    await gate?.promise;
    if (failure !== undefined) throw failure;
    return { run, padding: 'x'.repeat(Number(body['bytes'] ?? 0)) };
  });
  edge = await startEdge({ routes: [route], bounds: { idempotentAnswerBytesMax: 1_000 } });
});
afterEach(async () => {
  await edge[Symbol.asyncDispose]();
});

interface Sent {
  readonly path?: string;
  readonly body?: string;
  readonly key?: string;
  readonly tenant?: string;
}

async function send({ path = '/v1/count', body = '{"a":1}', key = 'key-1', tenant = secret }: Sent = {}) {
  const headers = { authorization: `Bearer ${tenant}`, 'content-type': 'application/json', 'idempotency-key': key };
  const answer = await fetch(`${edge.url}${path}`, { method: 'POST', headers, body });
  return { status: answer.status, headers: Object.fromEntries(answer.headers), body: await answer.text() };
}

describe('Idempotency-Key', () => {
  it('replays the first answer to the same request, under a request id of its own', async () => {
    const first = await send();
    const second = await send();
    expect(second.body).toBe(first.body);
    expect(runs).toBe(1);
    expect(second.headers['idempotency-replayed']).toBe('true');
    expect(first.headers['idempotency-replayed']).toBeUndefined();
    expect(second.headers['x-request-id']).not.toBe(first.headers['x-request-id']);
  });

  it('refuses the key with a different body or a different path', async () => {
    await send();
    expectError(await send({ body: '{"a":2}' }), { status: 422, code: 'idempotency_mismatch', param: 'Idempotency-Key' });
    expectError(await send({ path: '/v1/count?x=1' }), { status: 422, code: 'idempotency_mismatch' });
    expect(runs).toBe(1);
  });

  it("is independent of another tenant's key and of another route's", async () => {
    await send();
    expect((await send({ tenant: otherSecret, body: '{"a":2}' })).status).toBe(200);
    expect((await send({ path: '/v1/echo', body: '{"a":3}' })).status).toBe(200);
    expect(runs).toBe(2);
  });

  it('tells a repetition to come back while the first still runs', async () => {
    gate = Promise.withResolvers<void>();
    const first = send();
    await expect.poll(() => runs).toBe(1);
    const second = await send();
    expectError(second, { status: 425, code: 'idempotency_in_progress' });
    expect(second.headers).toMatchObject({ 'x-should-retry': 'true', 'retry-after': '1', 'retry-after-ms': '1000' });
    gate.resolve();
    expect((await first).status).toBe(200);
    expect((await send()).headers['idempotency-replayed']).toBe('true');
    expect(runs).toBe(1);
  });

  it('runs a request again whose first attempt failed', async () => {
    failure = new Error('broken');
    expectError(await send(), { status: 500, code: 'internal_error' });
    failure = undefined;
    expect((await send()).status).toBe(200);
    expect(runs).toBe(2);
  });

  it('does not keep an answer over the limit, and does not do the work twice either', async () => {
    const bytes = 1_000 - JSON.stringify({ run: 1, padding: '' }).length;
    await send({ key: 'fits', body: JSON.stringify({ bytes }) });
    expect((await send({ key: 'fits', body: JSON.stringify({ bytes }) })).headers['idempotency-replayed']).toBe('true');
    const first = await send({ key: 'large', body: JSON.stringify({ bytes: bytes + 1 }) });
    expect(first.status).toBe(200);
    const second = await send({ key: 'large', body: JSON.stringify({ bytes: bytes + 1 }) });
    expect(second.status).toBe(422);
    expect(JSON.parse(second.body)).toMatchObject({
      error: { code: 'idempotency_answer_not_kept', first_request_id: first.headers['x-request-id'] },
    });
    expect(runs).toBe(2);
  });

  it('takes keys of 1 to 255 printable characters', async () => {
    expect((await send({ key: 'k'.repeat(255) })).status).toBe(200);
    for (const key of ['k'.repeat(256), 'two words', 'k\u00e9y', 'a, b']) {
      expectError(await send({ key }), { status: 400, code: 'invalid_value', param: 'Idempotency-Key' });
    }
  });

  it('is refused, not ignored, for a stream', async () => {
    expectError(await send({ body: '{"stream":true}' }), { status: 400, code: 'unsupported_parameter', param: 'Idempotency-Key' });
    expect(runs).toBe(0);
  });

  it('counts the parts of an upload, not its boundary', async () => {
    const upload = (boundary: string, content: string) => {
      const headers = {
        authorization: `Bearer ${secret}`,
        'content-type': `multipart/form-data; boundary=${boundary}`,
        'idempotency-key': 'up',
      };
      const body = `--${boundary}\r\ncontent-disposition: form-data; name="file"; filename="a.txt"\r\n\r\n${content}\r\n--${boundary}--\r\n`;
      return fetch(`${edge.url}/v1/files`, { method: 'POST', headers, body });
    };
    expect((await upload('one', 'text')).status).toBe(200);
    const replayed = await upload('two', 'text');
    expect([replayed.status, replayed.headers.get('idempotency-replayed')]).toEqual([200, 'true']);
    expect((await upload('three', 'other')).status).toBe(422);
  });
});
