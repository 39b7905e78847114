/** Vector stores over HTTP. */
import { setTimeout as wait } from 'node:timers/promises';
import type { Client } from './measured-bulkhead.ts';

/** A store in which these texts are indexed. */
export async function storeOf(client: Client, texts: readonly string[]): Promise<string> {
  const { body } = await client.send('POST', '/v1/vector_stores', { name: 'bench' });
  const storeId = String(body['id']);
  for (const text of texts) await attach(client, storeId, text);
  while ((await inProgress(client, storeId)) > 0) await wait(50);
  return storeId;
}

export async function attach(client: Client, storeId: string, text: string): Promise<void> {
  const form = new FormData();
  form.set('purpose', 'assistants');
  form.set('file', new File([text], 'page.txt'));
  const { body } = await client.send('POST', '/v1/files', form);
  await client.send('POST', `/v1/vector_stores/${storeId}/files`, { file_id: body['id'] });
}

export async function inProgress(client: Client, storeId: string): Promise<number> {
  return (await countsOf(client, storeId)).in_progress;
}

export async function countsOf(client: Client, storeId: string) {
  const { body } = await client.send('GET', `/v1/vector_stores/${storeId}`);
  return body['file_counts'] as { readonly completed: number; readonly in_progress: number };
}
