/** A whole Bulkhead that is killed again and again on one data directory, and what is asked of it between two deaths. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { type RunningBulkhead, startBulkhead } from '../support/running-bulkhead.ts';

export interface Answer {
  readonly status: number;
  readonly text: string;
  readonly body: Readonly<Record<string, unknown>>;
}

export type Send = (method: 'GET' | 'POST' | 'DELETE', path: string, body?: unknown) => Promise<Answer>;

const adminToken = 'an-admin-token-for-kills';
/** Two embedding models, so that stores can be embedded anew. The simulated one answers 384 numbers, whatever it is asked. */
const models = { first: 'local-hash-384', second: 'other' } as const;
export type EmbeddingChoice = keyof typeof models;

const configOf = (embedding: EmbeddingChoice) =>
  JSON.stringify({
    auth: { adminToken },
    tiers: { kills: { weight: 1 } },
    providers: [{ id: 'sim', kind: 'simulated', timeToFirstTokenMs: 1, tokensPerSecond: 10_000 }],
    models: [
      { id: 'sim-fast', deployments: [{ provider: 'sim', model: 'sim-fast' }] },
      { id: 'other', kind: 'embedding', dimensions: 384, deployments: [{ provider: 'sim', model: 'other' }] },
    ],
    embedding: { model: models[embedding] },
    logging: { level: 'warn' },
  });

export class KilledBulkhead implements AsyncDisposable {
  readonly #dataDir = mkdtempSync(join(tmpdir(), 'bulkhead-kills-'));
  #running: RunningBulkhead | undefined;
  /** What the next start is configured with. */
  embedding: EmbeddingChoice = 'first';

  /** As the operator. Rejects when the process dies meanwhile. */
  readonly operator: Send = (method, path, body) => this.#send(adminToken, { method, path: `/admin/v1${path}`, body });

  static async start(): Promise<KilledBulkhead> {
    const bulkhead = new KilledBulkhead();
    await bulkhead.restart();
    return bulkhead;
  }

  async restart(): Promise<void> {
    this.#running = await startBulkhead({ dataDir: this.#dataDir, config: configOf(this.embedding) });
  }

  async kill(): Promise<void> {
    await this.#running?.stop('SIGKILL');
  }

  /** Whether every store of the tenant is embedded by the configured model, and none anew. */
  async isEmbedded(tenant: string): Promise<boolean> {
    const { body } = await this.operator('GET', `/tenants/${tenant}/embedding`);
    const stores = (body['data'] ?? []) as readonly { readonly model: string; readonly building: unknown }[];
    return stores.length > 0 && stores.every(({ model, building }) => model === models[this.embedding] && building === null);
  }

  /** A new tenant with a key. */
  async addTenant(id: string): Promise<Send> {
    await this.operator('POST', '/tenants', { id, tier: 'kills' });
    const { body } = await this.operator('POST', `/tenants/${id}/keys`, { name: 'kills' });
    const key = String(body['key']);
    return (method, path, sent) => this.#send(key, { method, path: `/v1${path}`, body: sent });
  }

  async #send(
    token: string,
    { method, path, body }: { readonly method: string; readonly path: string; readonly body: unknown },
  ): Promise<Answer> {
    const isForm = body instanceof FormData;
    const headers = { authorization: `Bearer ${token}`, ...(body !== undefined && !isForm && { 'content-type': 'application/json' }) };
    const sent = body === undefined ? {} : { body: isForm ? body : JSON.stringify(body) };
    const answer = await fetch(`${this.#running?.baseUrl}${path}`, { method, headers, ...sent });
    const text = await answer.text();
    const isJson = answer.headers.get('content-type')?.startsWith('application/json') === true;
    return { status: answer.status, text, body: isJson ? (JSON.parse(text) as Record<string, unknown>) : {} };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#running?.stop();
    rmSync(this.#dataDir, { recursive: true, force: true });
  }
}

/** Words that only this page has, in sentences that every page has, so that a page that is half there shows. */
export function pageOf(mark: string): string {
  const paragraph = (part: number) =>
    `Part ${part} of the page ${mark}. ${'The keeper of the archive writes down who came and what was taken. '.repeat(24)}`;
  return Array.from({ length: 4 }, (_, part) => paragraph(part)).join('\n\n');
}

export async function upload(send: Send, storeId: string, mark: string): Promise<string> {
  const form = new FormData();
  form.set('purpose', 'assistants');
  form.set('file', new File([pageOf(mark)], `${mark}.txt`));
  const { body, status, text } = await send('POST', '/files', form);
  if (status !== 200) throw new Error(`upload: ${status} ${text}`);
  const attached = await send('POST', `/vector_stores/${storeId}/files`, { file_id: body['id'] });
  if (attached.status !== 200) throw new Error(`attach: ${attached.status} ${attached.text}`);
  return String(body['id']);
}

/** Asks until the answer is right or the time is up; says whether it came right. */
export async function eventually(isSo: () => Promise<boolean>, withinMs = 60_000): Promise<boolean> {
  const untilMs = performance.now() + withinMs;
  while (!(await isSo())) {
    if (performance.now() > untilMs) return false;
    await wait(50);
  }
  return true;
}
