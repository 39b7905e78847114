/**
 * Real documents through the unchanged SDK: a bakery's papers (CC0, written for this project) in text, Markdown, HTML, CSV, JSON, PDF and DOCX, this project's
 * own documentation (Apache-2.0), and 240 Wikipedia paragraphs of XQuAD as one long text (CC BY-SA 4.0, see platform/data/README.md).
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import OpenAI, { toFile } from 'openai';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createRecordingFetch } from '../conformance/recording-fetch.ts';
import { buildDocx, buildPdf } from '../retrieval/build-documents.ts';
import { type RunningBulkhead, startBulkhead } from '../support/running-bulkhead.ts';

const corpus = join(import.meta.dirname, '../corpus');
const project = join(import.meta.dirname, '../../..');

let bulkhead: RunningBulkhead;
let client: OpenAI;
let storeId: string;
const fileIds = new Map<string, string>();

beforeAll(async () => {
  bulkhead = await startBulkhead();
  const recording = createRecordingFetch();
  client = new OpenAI({ baseURL: `${bulkhead.baseUrl}/v1`, apiKey: bulkhead.tenant('acme').apiKey, fetch: recording.fetch, maxRetries: 0 });
});
afterAll(async () => {
  await bulkhead[Symbol.asyncDispose]();
});

function documents(): ReadonlyMap<string, Buffer> {
  const papers = readdirSync(corpus).filter((name) => name !== 'LICENSE.txt');
  const found = new Map<string, Buffer>(papers.map((name) => [name, readFileSync(join(corpus, name))]));
  for (const name of ['README.md', 'STYLE.md', 'docs/architecture.md'])
    found.set(name.replace('/', '-'), readFileSync(join(project, name)));
  found.set(
    'insurance.pdf',
    buildPdf([
      [
        { text: 'Insurance policy', size: 18 },
        { text: 'The policy of the Petrel Mutual covers fire and flood up to 250,000 crowns.', startsParagraph: true },
      ],
    ]),
  );
  found.set('minutes.docx', buildDocx([{ text: 'Minutes', headingLevel: 1 }, { text: 'The partners elected Ansel as treasurer.' }]));
  return found.set('encyclopedia.txt', Buffer.from(paragraphs().join('\n\n')));
}

function paragraphs(): readonly string[] {
  const text = gunzipSync(readFileSync(join(project, 'platform/data/retrieval/xquad-en.json.gz'))).toString('utf8');
  const texts: string[] = [];
  JSON.parse(text, (_, value: unknown) => {
    if (typeof value === 'string' && value.length > 300) texts.push(value);
    return value;
  });
  return texts;
}

const search = async (query: string, extra: Partial<OpenAI.VectorStoreSearchParams> = {}) =>
  (await client.vectorStores.search(storeId, { query, ...extra })).data;

describe('a corpus through the SDK', () => {
  it('is uploaded in one batch and indexed whole', async () => {
    const store = await client.vectorStores.create({ name: 'bakery' });
    storeId = store.id;
    const uploads = documents();
    for (const [name, body] of uploads) {
      const file = await client.files.create({ file: await toFile(body, name), purpose: 'assistants' });
      fileIds.set(name, file.id);
      expect(file.bytes).toBe(body.length);
    }
    const batch = await client.vectorStores.fileBatches.createAndPoll(storeId, { file_ids: [...fileIds.values()] });
    expect(batch.file_counts).toMatchObject({ completed: uploads.size, failed: 0, in_progress: 0, total: uploads.size });
    expect((await client.vectorStores.retrieve(storeId)).usage_bytes).toBeGreaterThan(50_000);
  }, 120_000);

  it.each([
    ['How much is the monthly rent?', 'lease.md'],
    ['What is the sourdough called and what is it fed?', 'handbook.html'],
    ['Which customer has children who are allergic to nuts?', 'deliveries.csv'],
    ['When does the flour contract with Brackwater Mill end?', 'suppliers.json'],
    ['Who found the weathervane?', 'storm-log.txt'],
    ['Wann wird der Schornstein gefegt?', 'fragen.md'],
    ['Is damage by flood covered by Petrel Mutual?', 'insurance.pdf'],
    ['Who was elected treasurer by the partners?', 'minutes.docx'],
    ['Which catalogue stops the process at boot?', 'docs-architecture.md'],
  ])('answers "%s" from %s', async (question, filename) => {
    expect((await search(question))[0]?.filename).toBe(filename);
  });

  it('finds a passage in the middle of a long text, and cites it', async () => {
    const [passage] = paragraphs().slice(100);
    const words = (passage ?? '').split(/\s+/).slice(10, 25).join(' ');
    const [best] = await search(words);
    expect(best?.filename).toBe('encyclopedia.txt');
    expect(best?.content[0]?.text).toContain(words.split(' ').slice(0, 5).join(' '));
  });

  it('filters by attributes, pages through its files and gives their text back', async () => {
    const lease = fileIds.get('lease.md') ?? '';
    await client.vectorStores.files.update(lease, { vector_store_id: storeId, attributes: { kind: 'contract', year: 2026 } });
    const filtered = await search('the', {
      filters: {
        type: 'and',
        filters: [
          { type: 'eq', key: 'kind', value: 'contract' },
          { type: 'gte', key: 'year', value: 2026 },
        ],
      },
    });
    expect(new Set(filtered.map((result) => result.file_id))).toEqual(new Set([lease]));
    const listed: string[] = [];
    for await (const file of client.vectorStores.files.list(storeId, { limit: 3 })) listed.push(file.id);
    expect(new Set(listed)).toEqual(new Set(fileIds.values()));
    expect(listed).toHaveLength(fileIds.size);
    const texts: string[] = [];
    for await (const part of client.vectorStores.files.content(lease, { vector_store_id: storeId })) texts.push(part.text ?? '');
    expect(texts.join('\n')).toContain('rent');
  });

  it('forgets a file that is deleted', async () => {
    const log = fileIds.get('storm-log.txt') ?? '';
    await client.files.delete(log);
    expect((await search('Who found the weathervane?')).some((result) => result.file_id === log)).toBe(false);
    await expect(client.vectorStores.files.retrieve(log, { vector_store_id: storeId })).rejects.toMatchObject({ status: 404 });
    await expect(client.files.delete(log)).rejects.toMatchObject({ status: 404 });
  });

  it('is nobody else’s', async () => {
    const other = new OpenAI({ baseURL: `${bulkhead.baseUrl}/v1`, apiKey: bulkhead.tenant('globex').apiKey, maxRetries: 0 });
    await expect(other.vectorStores.search(storeId, { query: 'rent' })).rejects.toMatchObject({ status: 404 });
    await expect(other.files.content(fileIds.get('lease.md') ?? '')).rejects.toMatchObject({ status: 404 });
  });
});
