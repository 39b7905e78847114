/** What is under way when the process dies, and what must be true when it is back. */
import { eventually, type KilledBulkhead, pageOf, type Send, upload } from './killed-bulkhead.ts';

/** One run of something that takes a while. `work` rejects when the process dies; `problems` is asked after the restart. */
export interface Attempt {
  work(): Promise<void>;
  problems(): Promise<readonly string[]>;
  /** Removes what later attempts would carry along. */
  tidy(): Promise<unknown>;
}

export interface KillKind {
  readonly name: string;
  begin(bulkhead: KilledBulkhead, number: number): Promise<Attempt>;
}

interface Page {
  readonly mark: string;
  /** Acknowledged: attached to the store. */
  readonly fileId: string;
}

const pagesAtOnce = 3;
const chunksOfPage = 50;

export const killKinds: readonly KillKind[] = [
  { name: 'ingest', begin: beginIngest },
  { name: 'move', begin: beginMove },
  { name: 'erase', begin: beginErase },
  { name: 're-embed', begin: beginReembed },
];

async function beginIngest(bulkhead: KilledBulkhead, number: number): Promise<Attempt> {
  const send = await bulkhead.addTenant(`ingest-${number}`);
  const storeId = await newStore(send);
  const pages: Page[] = [];
  return {
    async work() {
      for (let page = 0; page < pagesAtOnce; page++) {
        const mark = `heron${number}x${page}q`;
        pages.push({ mark, fileId: await upload(send, storeId, mark) });
      }
      await eventually(async () => (await unfinished(send, storeId)) === 0);
    },
    async problems() {
      return [...(await halfVisible(send, storeId, pages)), ...(await lost(send, storeId, pages)), ...(await tornFiles(send))];
    },
    tidy: () => send('DELETE', `/vector_stores/${storeId}`),
  };
}

async function beginMove(bulkhead: KilledBulkhead, number: number): Promise<Attempt> {
  const id = `move-${number}`;
  const send = await bulkhead.addTenant(id);
  const storeId = await newStore(send);
  const pages: Page[] = [];
  const add = async (mark: string) => pages.push({ mark, fileId: await upload(send, storeId, mark) });
  for (let page = 0; page < pagesAtOnce; page++) await add(`marten${number}x${page}q`);
  await eventually(async () => (await unfinished(send, storeId)) === 0);
  // Every other one on its way back.
  if (number % 2 === 1) await move(bulkhead, id, 'siloed');
  const found = (await foundMarks(send, storeId, pages)).join();
  return {
    async work() {
      // The tenant goes on writing.
      const writing = async () => {
        for (let page = 0; page < 2; page++) await add(`otter${number}x${page}q`);
      };
      await Promise.all([move(bulkhead, id, number % 2 === 1 ? 'pooled' : 'siloed'), writing()]);
    },
    async problems() {
      const isEnded = await eventually(
        async () => !['moving', 'cleaning'].includes(String((await bulkhead.operator('GET', `/tenants/${id}/move`)).body['status'])),
      );
      const before = pages.slice(0, pagesAtOnce);
      const now = (await foundMarks(send, storeId, before)).join();
      return [
        ...(isEnded ? [] : [`the move of ${id} does not end`]),
        ...(now === found ? [] : [`${id} finds ${now}, and found ${found}`]),
        ...(await halfVisible(send, storeId, pages)),
        ...(await lost(send, storeId, pages)),
        ...(await tornFiles(send)),
      ];
    },
    tidy: () => send('DELETE', `/vector_stores/${storeId}`),
  };
}

async function move(bulkhead: KilledBulkhead, id: string, to: string): Promise<void> {
  const begun = await bulkhead.operator('POST', `/tenants/${id}/move`, { to });
  if (begun.status >= 300) throw new Error(`move: ${begun.status} ${begun.text}`);
  await eventually(async () => (await bulkhead.operator('GET', `/tenants/${id}/move`)).body['status'] === 'completed');
}

async function newStore(send: Send): Promise<string> {
  return String((await send('POST', '/vector_stores', { name: 'kills' })).body['id']);
}

async function unfinished(send: Send, storeId: string): Promise<number> {
  const { body, status } = await send('GET', `/vector_stores/${storeId}`);
  return status === 200 ? ((body['file_counts'] as { readonly in_progress: number } | undefined)?.in_progress ?? 0) : 1;
}

/** Pages a search shows in part: some of its chunks and not all. Looked for at once, while what was cut off is taken up again. */
async function halfVisible(send: Send, storeId: string, pages: readonly Page[]): Promise<readonly string[]> {
  const problems: string[] = [];
  const whole = new Map<number, string>();
  for (const { mark, fileId } of pages) {
    const filesShown = await chunksShown(send, storeId, mark);
    const shown = filesShown.get(fileId) ?? 0;
    if (shown > 0) whole.set(shown, mark);
    if (shown > 0 && !(await hasAllText(send, storeId, { mark, fileId }))) problems.push(`${mark} is visible and its text is not whole`);
  }
  // Pages are of one length but for their marks, so whoever shows another number of chunks shows a part.
  if (whole.size > 1) problems.push(`pages of one length show ${[...whole.keys()].join(' and ')} chunks`);
  return problems;
}

/** Acknowledged pages that do not come to be found. */
async function lost(send: Send, storeId: string, pages: readonly Page[]): Promise<readonly string[]> {
  const isDone = await eventually(async () => (await unfinished(send, storeId)) === 0);
  const problems = isDone ? [] : ['what was cut off is not taken up again'];
  for (const page of pages) {
    if (!(await chunksShown(send, storeId, page.mark)).has(page.fileId)) problems.push(`${page.mark} is not found`);
    else if (!(await hasAllText(send, storeId, page))) problems.push(`the text of ${page.mark} is not whole`);
  }
  return problems;
}

/** Files that are listed and cannot be read to their end. */
async function tornFiles(send: Send): Promise<readonly string[]> {
  const { body } = await send('GET', '/files?limit=100');
  const problems: string[] = [];
  for (const { id, bytes } of body['data'] as readonly { readonly id: string; readonly bytes: number }[]) {
    const { text } = await send('GET', `/files/${id}/content`);
    if (Buffer.byteLength(text) !== bytes) problems.push(`${id} has ${Buffer.byteLength(text)} of ${bytes} bytes`);
  }
  return problems;
}

async function foundMarks(send: Send, storeId: string, pages: readonly Page[]): Promise<readonly string[]> {
  const found: string[] = [];
  for (const { mark, fileId } of pages) found.push(`${mark}:${(await chunksShown(send, storeId, mark)).get(fileId) ?? 0}`);
  return found;
}

/** Chunks by file among the best fifty for a page's own word. */
async function chunksShown(send: Send, storeId: string, mark: string): Promise<ReadonlyMap<string, number>> {
  const { body, status, text } = await send('POST', `/vector_stores/${storeId}/search`, {
    query: `the page ${mark}`,
    max_num_results: chunksOfPage,
  });
  if (status !== 200) throw new Error(`search: ${status} ${text}`);
  const counts = new Map<string, number>();
  for (const { file_id: id } of body['data'] as readonly { readonly file_id: string }[]) counts.set(id, (counts.get(id) ?? 0) + 1);
  return counts;
}

async function hasAllText(send: Send, storeId: string, { mark, fileId }: Page): Promise<boolean> {
  const { body } = await send('GET', `/vector_stores/${storeId}/files/${fileId}/content`);
  const parts = (body['data'] as readonly { readonly text: string }[] | undefined) ?? [];
  const text = parts.map((part) => part.text).join('\n');
  return pageOf(mark)
    .split('\n\n')
    .every((paragraph) => text.includes(paragraph.trim().slice(0, 60)));
}

async function beginErase(bulkhead: KilledBulkhead, number: number): Promise<Attempt> {
  const id = `erase-${number}`;
  const send = await bulkhead.addTenant(id);
  const storeId = await newStore(send);
  const pages: Page[] = [];
  for (let page = 0; page < pagesAtOnce; page++) {
    const mark = `bittern${number}x${page}q`;
    pages.push({ mark, fileId: await upload(send, storeId, mark) });
  }
  await eventually(async () => (await unfinished(send, storeId)) === 0);
  const erasure = async () => (await bulkhead.operator('GET', `/tenants/${id}/erasure`)).body['status'];
  return {
    async work() {
      const begun = await bulkhead.operator('DELETE', `/tenants/${id}`);
      if (begun.status >= 300) throw new Error(`erase: ${begun.status} ${begun.text}`);
      await eventually(async () => (await erasure()) === 'completed');
    },
    async problems() {
      // Not on record: nothing may be gone.
      if ((await erasure()) === undefined) return lost(send, storeId, pages);
      const seen = await send('GET', `/vector_stores/${storeId}`);
      const isErased = await eventually(async () => (await erasure()) === 'completed');
      const { body } = await bulkhead.operator('GET', `/tenants/${id}/erasure`);
      return [
        ...(seen.status < 400 ? [`${id} is being erased and reads ${seen.text}`] : []),
        ...(isErased && body['receipt'] != null ? [] : [`the erasure of ${id} does not end: ${JSON.stringify(body)}`]),
      ];
    },
    tidy: async () => {},
  };
}

async function beginReembed(bulkhead: KilledBulkhead, number: number): Promise<Attempt> {
  const id = `reembed-${number}`;
  const send = await bulkhead.addTenant(id);
  const storeId = await newStore(send);
  const pages: Page[] = [];
  for (let page = 0; page < pagesAtOnce; page++) {
    const mark = `plover${number}x${page}q`;
    pages.push({ mark, fileId: await upload(send, storeId, mark) });
  }
  await eventually(async () => (await unfinished(send, storeId)) === 0);
  const found = (await foundMarks(send, storeId, pages)).join();
  // The start with the other model is what begins it.
  await bulkhead.kill();
  bulkhead.embedding = bulkhead.embedding === 'first' ? 'second' : 'first';
  await bulkhead.restart();
  return {
    async work() {
      await eventually(() => bulkhead.isEmbedded(id));
    },
    async problems() {
      const atOnce = (await foundMarks(send, storeId, pages)).join();
      const isDone = await eventually(() => bulkhead.isEmbedded(id));
      const afterwards = (await foundMarks(send, storeId, pages)).join();
      return [
        ...(atOnce === found ? [] : [`${id} finds ${atOnce} meanwhile, and found ${found}`]),
        ...(isDone ? [] : [`the embedding of ${id} does not end`]),
        ...(afterwards === found ? [] : [`${id} finds ${afterwards} afterwards, and found ${found}`]),
        ...(await lost(send, storeId, pages)),
      ];
    },
    tidy: () => send('DELETE', `/vector_stores/${storeId}`),
  };
}
