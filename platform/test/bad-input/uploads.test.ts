/** Uploads go to disk as they arrive: what they hold is bounded, nobody else can read it, and it is gone on every way out. */
import { readdirSync, writeFileSync } from 'node:fs';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { SpoolFolder } from '../../src/adapters/spool-folder/spool-folder.ts';
import type { TenantExchange } from '../../src/gateway/exchange.ts';
import { fileRoutes } from '../../src/gateway/openai/file-routes.ts';
import type { SpooledFile, UploadSpool } from '../../src/tenancy/upload-spool.ts';
import { expectError, otherSecret, secret, startEdge } from './support/test-edge.ts';

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'bulkhead-uploads-'));
});
afterAll(() => rm(directory, { recursive: true, force: true }));

/** A real spool whose files are counted, and whose writes wait for `gate`. */
class WatchedSpool implements UploadSpool {
  readonly #spool = new SpoolFolder({ directory });
  gate: Promise<void> = Promise.resolve();
  opened = 0;
  closed = 0;
  writtenBytes = 0;

  async open(): Promise<SpooledFile> {
    const file = await this.#spool.open();
    this.opened++;
    return {
      write: async (bytes) => {
        await this.gate;
        await file.write(bytes);
        this.writtenBytes += bytes.length;
      },
      finish: () => file.finish(),
      [Symbol.asyncDispose]: async () => {
        await file[Symbol.asyncDispose]();
        this.closed++;
      },
    };
  }
}

const opening = '--b\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n';
const closing = '\r\n--b--\r\n';

function send(url: string, content: string, credential = secret) {
  const headers = { authorization: `Bearer ${credential}`, 'content-type': 'multipart/form-data; boundary=b' };
  return fetch(`${url}/v1/files`, { method: 'POST', headers, body: Buffer.from(opening + content + closing) }).then(async (answer) => ({
    status: answer.status,
    headers: Object.fromEntries(answer.headers),
    body: await answer.text(),
  }));
}

/** Declares `bytes` of content, and sends what it is told to. */
async function beginUpload(port: number, bytes: number, credential = secret): Promise<Socket> {
  const socket = connect(port, '127.0.0.1');
  await new Promise((resolve) => socket.once('connect', resolve));
  const length = opening.length + bytes + closing.length;
  socket.write(
    `POST /v1/files HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${credential}\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: ${length}\r\n\r\n${opening}`,
  );
  socket.on('error', () => {});
  return socket;
}

describe('an upload', () => {
  it('has no name on disk while it arrives, and no file when it was served', async () => {
    const spool = new WatchedSpool();
    await using edge = await startEdge({ spool });
    const socket = await beginUpload(edge.port, 200_000);
    socket.write('x'.repeat(100_000));
    await expect.poll(() => spool.writtenBytes).toBeGreaterThan(60_000);
    expect(readdirSync(directory)).toEqual([]);
    socket.write('x'.repeat(100_000) + closing);
    await expect.poll(() => spool.closed).toBe(1);
    socket.destroy();
  });

  it('left by a crash between its two calls is removed at the next start', () => {
    writeFileSync(join(directory, 'left-behind'), 'content of acme');
    expect(new SpoolFolder({ directory })).toBeDefined();
    expect(readdirSync(directory)).toEqual([]);
  });

  it.each(['the client leaves', 'the framing breaks', 'a field is refused'])('is gone when %s', async (fault) => {
    const spool = new WatchedSpool();
    await using edge = await startEdge({ spool, bounds: { spoolBytesMax: 700_000 } });
    // More often than the budget would bear if anything stayed.
    for (let count = 1; count <= 5; count++) {
      const socket = await beginUpload(edge.port, 200_000);
      socket.write('x'.repeat(150_000));
      await expect.poll(() => spool.opened).toBe(count);
      if (fault === 'the client leaves') socket.destroy();
      else if (fault === 'the framing breaks') socket.write('\r\n--bad\r\n');
      else socket.write('\r\n--b\r\nContent-Disposition: form-data; name="tenant_id"\r\n\r\nglobex');
      if (fault === 'a field is refused') socket.end(`${' '.repeat(200_000)}${closing}`);
      await expect.poll(() => spool.closed).toBe(count);
      socket.destroy();
    }
    await expect.poll(async () => (await send(edge.url, 'x'.repeat(300_000))).status).toBe(200);
  });

  it('holds its client back while the disk is behind', async () => {
    const spool = new WatchedSpool();
    const { promise, resolve } = Promise.withResolvers<void>();
    spool.gate = promise;
    const bytes = 48 * 1_024 * 1_024;
    await using edge = await startEdge({ spool, bounds: { uploadBytesMax: bytes, spoolBytesMax: 4 * bytes } });
    const socket = await beginUpload(edge.port, bytes);
    const answered = new Promise<string>((done) => socket.once('data', (data) => done(data.toString('latin1'))));
    socket.write('x'.repeat(bytes) + closing);
    await new Promise((done) => setTimeout(done, 500));
    // What the kernel holds of a connection is a few megabytes; the rest has not left the client.
    expect(socket.writableLength).toBeGreaterThan(bytes / 2);
    expect(spool.writtenBytes).toBe(0);
    resolve();
    expect(await answered).toContain('200 OK');
    expect(spool.writtenBytes).toBe(bytes);
    socket.destroy();
  });
});

describe('many uploads', () => {
  it('of one tenant fill at most half of the disk that is set aside, and refuse nobody else', async () => {
    const spool = new WatchedSpool();
    await using edge = await startEdge({ spool, bounds: { spoolBytesMax: 2_000_000 } });
    const held = await beginUpload(edge.port, 600_000);
    held.write('x'.repeat(590_000));
    await expect.poll(() => spool.writtenBytes).toBeGreaterThan(580_000);
    const refused = await send(edge.url, 'x'.repeat(500_000));
    expectError(refused, { status: 503, code: 'capacity_unavailable' });
    expect(refused.body).toContain('"limit":"tenant.spool_bytes"');
    expect((await send(edge.url, 'x'.repeat(900_000), otherSecret)).status).toBe(200);
    held.destroy();
    await expect.poll(async () => (await send(edge.url, 'x'.repeat(500_000))).status).toBe(200);
  });

  it('count in memory with their window alone, whatever their size', async () => {
    const mb = 1_024 * 1_024;
    const spool = new WatchedSpool();
    await using edge = await startEdge({
      spool,
      bounds: { bodyBytesInFlightMax: 4 * mb, uploadBytesMax: 8 * mb, spoolBytesMax: 256 * mb },
    });
    const open = await Promise.all(Array.from({ length: 4 }, () => beginUpload(edge.port, 8 * mb)));
    for (const socket of open) socket.write('x'.repeat(7 * mb));
    await expect.poll(() => spool.writtenBytes).toBeGreaterThan(27 * mb);
    expect((await send(edge.url, 'x')).body).toContain('"limit":"tenant.body_bytes"');
    expect((await send(edge.url, 'x'.repeat(3 * mb), otherSecret)).status).toBe(200);
    for (const socket of open) socket.destroy();
    await expect.poll(async () => (await send(edge.url, 'x')).status).toBe(200);
  });

  it('end with 503 on a full disk, and are taken when there is room again', async () => {
    let isFull = true;
    const full = new SpoolFolder({ directory, openFile: () => open('/dev/full', 'r+') });
    const roomy = new SpoolFolder({ directory });
    await using edge = await startEdge({ spool: { open: () => (isFull ? full : roomy).open() } });
    const refused = await send(edge.url, 'x'.repeat(100_000));
    expectError(refused, { status: 503, code: 'capacity_unavailable' });
    expect(refused.body).toContain('"limit":"gateway.disk"');
    expect(refused.headers['retry-after']).toBe('10');
    isFull = false;
    expect((await send(edge.url, 'x'.repeat(100_000))).status).toBe(200);
  });
});

describe('the size of a file', () => {
  const upload = fileRoutes({ nowMs: () => 0, documentBytesMax: 1_000 }).find(({ method }) => method === 'POST');
  const attempt = (purpose: string, bytes: number) => {
    const body = { bytes, sha256: '', parts: () => [] as unknown as AsyncIterable<Uint8Array> };
    const file = { id: 'file-1', filename: 'a', purpose, bytes, sha256: '', createdAtMs: 0 };
    const exchange = {
      upload: { fields: { purpose }, file: { filename: 'a', contentType: '', body } },
      scope: { files: { create: async () => file } },
    } as unknown as TenantExchange;
    return (upload as NonNullable<typeof upload>).handle(exchange).then(
      ({ kind }) => kind,
      (error) => error.code,
    );
  };

  it('is that of a document, unless it is work for later', async () => {
    for (const purpose of ['assistants', 'vision', 'user_data']) {
      expect(await attempt(purpose, 1_000)).toBe('json');
      expect(await attempt(purpose, 1_001)).toBe('body_too_large');
    }
    for (const purpose of ['batch', 'fine-tune', 'evals']) expect(await attempt(purpose, 1_001)).toBe('json');
  });
});
