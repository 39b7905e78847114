/** Ingestion through the unchanged SDK: what polling shows while it runs, what becomes of hostile files, and what the neighbours notice. */
import OpenAI, { toFile } from 'openai';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { buildDocx, buildPptx, buildXlsx, buildZip, docxEntries } from '../retrieval/build-documents.ts';
import { type RunningBulkhead, startBulkhead } from '../support/running-bulkhead.ts';

let bulkhead: RunningBulkhead;
beforeAll(async () => {
  bulkhead = await startBulkhead();
});
afterAll(async () => {
  await bulkhead[Symbol.asyncDispose]();
});

interface Poll {
  readonly pollAfterMs: string | null;
  readonly body: { readonly status: string; readonly file_counts: Readonly<Record<string, number>> };
}

/** The SDK, and every answer about a batch that it polled for. */
function watchedClient(tenant: string, polls: Poll[] = []): OpenAI {
  return new OpenAI({
    baseURL: `${bulkhead.baseUrl}/v1`,
    apiKey: bulkhead.tenant(tenant).apiKey,
    fetch: async (url, init) => {
      const answer = await fetch(url, init);
      if (answer.url.includes('/file_batches')) {
        const body = (await answer.clone().json()) as Poll['body'];
        polls.push({ pollAfterMs: answer.headers.get('openai-poll-after-ms'), body });
      }
      return answer;
    },
  });
}

const page = (index: number) =>
  toFile(Buffer.from(`Page ${index}. The harbour opens at ${index} o'clock. `.repeat(40)), `page-${index}.txt`);

describe('a batch of files', () => {
  it('can be watched: its counts move, the SDK is told when to look again, failures say why', async () => {
    const polls: Poll[] = [];
    const client = watchedClient('acme', polls);
    const store = await client.vectorStores.create({ name: 'watched' });
    const files = await Promise.all([
      ...Array.from({ length: 10 }, (_, index) => page(index)),
      toFile(
        buildXlsx([
          {
            name: 'Rents',
            rows: [
              ['Flat', 'Rent'],
              ['Attic', 700],
            ],
          },
        ]),
        'rents.xlsx',
      ),
      toFile(buildPptx([{ title: 'The annual picnic', paragraphs: ['It is on the first of June.'] }]), 'picnic.pptx'),
      toFile(Buffer.from('MZ'), 'tool.exe'),
      toFile(buildZip([...docxEntries([{ text: 'x' }]), { name: 'word/a.xml', content: Buffer.alloc(101 * 1_024 ** 2) }]), 'bomb.docx'),
    ]);
    const batch = await client.vectorStores.fileBatches.uploadAndPoll(store.id, { files });
    expect(batch.file_counts).toEqual({ in_progress: 0, completed: 12, failed: 2, cancelled: 0, total: 14 });
    expect(polls.every(({ pollAfterMs }) => pollAfterMs === '250')).toBe(true);
    const done = polls.map(({ body }) => (body.file_counts['completed'] ?? 0) + (body.file_counts['failed'] ?? 0));
    expect(done).toEqual(done.toSorted((left, right) => left - right));
    expect(polls.every(({ body }) => body.file_counts['total'] === 14)).toBe(true);
    expect(new Set(done).size).toBeGreaterThan(2);

    const listed = await client.vectorStores.fileBatches.listFiles(batch.id, { vector_store_id: store.id, limit: 100 });
    const errors = listed.data.flatMap(({ last_error: error }) => (error ? [error] : []));
    expect(new Set(errors.map(({ code }) => code))).toEqual(new Set(['invalid_file', 'unsupported_file']));
    expect(new Set(errors.map(({ message }) => message.split(':')[0]))).toEqual(new Set(['archive_limit', 'unsupported_file_type']));
    for (const file of listed.data) expect(file.usage_bytes > 0).toBe(file.status === 'completed');
    for (const [query, filename] of [
      ['rent of the attic', 'rents.xlsx'],
      ['when is the annual picnic', 'picnic.pptx'],
    ] as const) {
      const found = await client.vectorStores.search(store.id, { query });
      expect(found.data[0]?.filename).toBe(filename);
    }
  });

  it('can be cancelled in the middle: what is indexed stays, nothing else comes', async () => {
    const client = watchedClient('globex');
    const store = await client.vectorStores.create({ name: 'cancelled' });
    const uploaded = await Promise.all(
      Array.from({ length: 30 }, async (_, index) => client.files.create({ file: await page(index), purpose: 'assistants' })),
    );
    const batch = await client.vectorStores.fileBatches.create(store.id, { file_ids: uploaded.map(({ id }) => id) });
    const countsOf = async () => (await client.vectorStores.fileBatches.retrieve(batch.id, { vector_store_id: store.id })).file_counts;
    await expect.poll(async () => (await countsOf()).completed, { timeout: 30_000 }).toBeGreaterThan(0);
    const cancelled = await client.vectorStores.fileBatches.cancel(batch.id, { vector_store_id: store.id });
    expect(cancelled.file_counts.in_progress).toBe(0);
    expect(cancelled.file_counts.cancelled).toBeGreaterThan(0);
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    expect(await countsOf()).toEqual(cancelled.file_counts);
  });

  it('holds one file once, however often it is attached at a time', async () => {
    const client = watchedClient('acme');
    const store = await client.vectorStores.create({ name: 'once' });
    const file = await client.files.create({ file: await page(1), purpose: 'assistants' });
    const attached = await Promise.all(
      Array.from({ length: 8 }, () => client.vectorStores.files.createAndPoll(store.id, { file_id: file.id })),
    );
    expect(new Set(attached.map(({ id, status }) => `${id} ${status}`)).size).toBe(1);
    expect((await client.vectorStores.retrieve(store.id)).file_counts.total).toBe(1);
    const found = await client.vectorStores.search(store.id, { query: 'harbour' });
    expect(new Set(found.data.map(({ content }) => content[0]?.text)).size).toBe(found.data.length);
  });
});

describe('a tenant with one page', () => {
  it('waits for the files under way of a tenant with many, not for the many', async () => {
    const [many, one] = [watchedClient('acme'), watchedClient('globex')];
    const [theirs, own] = [await many.vectorStores.create({ name: 'many' }), await one.vectorStores.create({ name: 'one' })];
    const uploaded = await Promise.all(
      Array.from({ length: 40 }, async (_, index) => many.files.create({ file: await page(index), purpose: 'assistants' })),
    );
    const single = await one.files.create({ file: await page(99), purpose: 'assistants' });
    const batch = await many.vectorStores.fileBatches.create(theirs.id, { file_ids: uploaded.map(({ id }) => id) });
    const done = async () => (await many.vectorStores.fileBatches.retrieve(batch.id, { vector_store_id: theirs.id })).file_counts.completed;
    await expect.poll(done, { timeout: 30_000 }).toBeGreaterThan(0);
    await one.vectorStores.files.create(own.id, { file_id: single.id });
    const before = await done();
    const isIndexed = async () => (await one.vectorStores.files.retrieve(single.id, { vector_store_id: own.id })).status === 'completed';
    while (!(await isIndexed())) await new Promise((resolve) => setTimeout(resolve, 5));
    // Two are under way, the turn after them is the one page's; what is left is for the time between two looks.
    expect((await done()) - before).toBeLessThanOrEqual(8);
    expect(before).toBeLessThan(30);
    await many.vectorStores.fileBatches.cancel(batch.id, { vector_store_id: theirs.id });
  });
});

describe('documents that keep the reader busy until it is stopped', () => {
  it('fail by name, and a neighbour searches and chats meanwhile', async () => {
    const victim = watchedClient('globex');
    const store = await victim.vectorStores.create({ name: 'quiet' });
    await victim.vectorStores.files.uploadAndPoll(
      store.id,
      await toFile(buildDocx([{ text: 'The harbour opens at six.' }]), 'harbour.docx'),
    );
    const searchMs = async () => {
      const startedAtMs = performance.now();
      const found = await victim.vectorStores.search(store.id, { query: 'when does the harbour open' });
      expect(found.data[0]?.filename).toBe('harbour.docx');
      return performance.now() - startedAtMs;
    };
    const alone: number[] = [];
    for (let count = 0; count < 20; count++) alone.push(await searchMs());
    const bombs = watchedClient('acme');
    const target = await bombs.vectorStores.create({ name: 'bombs' });
    // More table than the reader may hold in memory.
    const wide = Buffer.from(`${'a,'.repeat(900)}a\n`.repeat(25_000));
    const file = await bombs.files.create({ file: await toFile(wide, 'wide.csv'), purpose: 'assistants' });
    const indexing = bombs.vectorStores.files.createAndPoll(target.id, { file_id: file.id });
    let isOver = false;
    const over = indexing.finally(() => {
      isOver = true;
    });
    const searches: number[] = [];
    while (!isOver) {
      searches.push(await searchMs());
      const answer = await victim.chat.completions.create({ model: 'sim-fast', messages: [{ role: 'user', content: 'hello' }] });
      expect(answer.choices[0]?.message.content).toBeTruthy();
    }
    const failed = await over;
    expect(failed.status).toBe('failed');
    expect(failed.last_error?.message).toMatch(/^document_limit: reading a document may take at most/);
    // Wide, for machines that are busy with other things; reading on the main thread would hold every search up for seconds.
    expect(searches.length).toBeGreaterThan(3);
    expect(medianOf(searches)).toBeLessThan(5 * medianOf(alone) + 500);
  }, 180_000);
});

function medianOf(values: readonly number[]): number {
  return values.toSorted((left, right) => left - right)[Math.floor(values.length / 2)] ?? 0;
}
