/**
 * Many tenants of one real Bulkhead, each with a canary in everything it owns and says, in front of an upstream that repeats whatever it is
 * given. `Ownership` knows whose every canary and id is, and reports what stands where it does not belong.
 */
import { Agent, request as httpRequest, type IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { setTimeout as wait } from 'node:timers/promises';
import type { Random } from '../../src/primitives/random.ts';
import { type RunningBulkhead, startBulkhead } from '../support/running-bulkhead.ts';
import { ScriptedUpstream, type UpstreamScript } from '../support/scripted-upstream.ts';

const adminToken = 'admin-token-of-the-confusion-test';

export interface Member {
  readonly id: string;
  readonly canary: string;
  readonly key: string;
  readonly keyId: string;
  /** The tenant's alone, so that a limit header shows whose limit was looked at. */
  readonly requestsPerMinute: number;
  readonly fileId: string;
  readonly storeId: string;
  readonly responseId: string;
  /** Of the canary's text, as the tenant alone got it. */
  readonly embedding: string;
}

/** Whose every canary, tenant id, key id and object id is. */
export class Ownership {
  readonly owners = new Map<string, string>();
  readonly violations: string[] = [];

  add(tenant: string, ...marks: readonly string[]): void {
    for (const mark of marks) {
      const before = this.owners.get(mark);
      if (before !== undefined && before !== tenant) this.report(`${mark} was given to ${before} and to ${tenant}`);
      this.owners.set(mark, tenant);
    }
  }

  /** Every known mark in the text must be the tenant's own; `asked` are foreign ids the request itself named. */
  check(tenant: string, where: string, text: string, asked: readonly string[] = []): void {
    for (const mark of marksIn(text)) {
      const owner = this.owners.get(mark);
      if (owner !== undefined && owner !== tenant && !asked.includes(mark)) this.report(`${where} of ${tenant} has ${mark} of ${owner}`);
      if (owner === undefined && mark.startsWith('qzcnry')) this.report(`${where} of ${tenant} has a canary of nobody: ${mark}`);
    }
  }

  /** All marks must be of one tenant, whichever. */
  checkAlone(where: string, text: string): void {
    const owners = new Set(marksIn(text).flatMap((mark) => this.owners.get(mark) ?? []));
    if (owners.size > 1) this.report(`${where} is of ${[...owners].join(' and ')}`);
  }

  expect(holds: boolean, what: string): void {
    if (!holds) this.report(what);
  }

  report(violation: string): void {
    this.violations.push(violation);
  }
}

export function marksIn(text: string): readonly string[] {
  return text.match(/qzcnry[a-z]{16}7|\btn-[a-z]{10}\b|\b(?:file-|vs_|resp_|msg_|fs_)[0-9a-z]{26}\b/g) ?? [];
}

export interface Answered {
  readonly status: number;
  readonly headers: IncomingMessage['headers'];
  readonly text: string;
}

export interface Sending {
  readonly method: 'GET' | 'POST' | 'DELETE';
  readonly path: string;
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
  /** Hang up after this many bytes of the answer. */
  readonly leaveAfterBytes?: number;
}

export interface World extends AsyncDisposable {
  readonly bulkhead: RunningBulkhead;
  readonly ownership: Ownership;
  readonly members: readonly Member[];
  /** Sockets, and who was served on each. */
  readonly served: ReadonlyMap<Socket, ReadonlySet<string>>;
  send(member: Pick<Member, 'id' | 'key'>, sending: Sending): Promise<Answered>;
  admin(method: Sending['method'], path: string, body?: unknown): Promise<Answered>;
}

export async function openWorld(options: {
  readonly tenants: number;
  readonly connections: number;
  readonly random: Random;
}): Promise<World> {
  const { random } = options;
  await using stack = new AsyncDisposableStack();
  const ownership = new Ownership();
  const upstream = stack.use(await ScriptedUpstream.start(echo(ownership, random)));
  const bulkhead = stack.use(await startBulkhead({ config: configOf(upstream.baseUrl) }));
  const agent = new Agent({ keepAlive: true, maxSockets: options.connections, scheduling: 'fifo' });
  stack.defer(() => agent.destroy());
  const served = new Map<Socket, Set<string>>();
  const send: World['send'] = ({ id, key }, sending) =>
    exchange(bulkhead.baseUrl, { agent, key, sending, onSocket: (socket) => note(served, socket, id) });
  const admin: World['admin'] = (method, path, body) => send({ id: 'operator', key: adminToken }, { method, path, body });
  const members: Member[] = [];
  for (let index = 0; index < options.tenants; index++) members.push(await enrol({ send, admin, ownership }, index, random));
  served.clear();
  const opened = stack.move();
  return { bulkhead, ownership, members, served, send, admin, [Symbol.asyncDispose]: () => opened.disposeAsync() };
}

function configOf(upstreamUrl: string): string {
  return `
auth: { adminToken: ${adminToken} }
logging: { level: debug }
tiers: { test: { weight: 1 } }
providers:
  - { id: echo, kind: openai-compatible, baseUrl: "${upstreamUrl}" }
models:
  - { id: echo, deployments: [ { provider: echo, model: echo, limits: { concurrency: 12 } } ] }
`;
}

/** Repeats every message it was given, in pieces and with pauses, so that requests overtake each other. Sees what left for the provider, too. */
function echo(ownership: Ownership, random: Random): UpstreamScript {
  return async (response, { body }) => {
    const sent = JSON.stringify(body);
    ownership.checkAlone('a request to the provider', sent);
    const messages = body['messages'] as readonly { readonly content: unknown }[];
    const text = messages.map(({ content }) => (typeof content === 'string' ? content : JSON.stringify(content))).join('\n');
    await wait(random.next() * 8);
    const usage = { prompt_tokens: 5, completion_tokens: 7, total_tokens: 12 };
    if (body['stream'] !== true) {
      const choice = { index: 0, message: { role: 'assistant', content: text }, finish_reason: 'stop' };
      const whole = { id: 'chatcmpl-1', object: 'chat.completion', created: 1, model: 'echo', choices: [choice], usage };
      response.writeHead(200, { 'content-type': 'application/json' });
      response.end(JSON.stringify(whole));
      return;
    }
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    const chunk = (choices: readonly unknown[], rest = {}) =>
      `data: ${JSON.stringify({ id: 'chatcmpl-1', object: 'chat.completion.chunk', created: 1, model: 'echo', choices, ...rest })}\n\n`;
    for (let start = 0; start < text.length && !response.destroyed; start += 13) {
      response.write(chunk([{ index: 0, delta: { content: text.slice(start, start + 13) }, finish_reason: null }]));
      if (random.next() < 0.3) await wait(1);
    }
    response.end(`${chunk([{ index: 0, delta: {}, finish_reason: 'stop' }])}${chunk([], { usage })}data: [DONE]\n\n`);
  };
}

interface Enrolment {
  readonly send: World['send'];
  readonly admin: World['admin'];
  readonly ownership: Ownership;
}

async function enrol({ send, admin, ownership }: Enrolment, index: number, random: Random): Promise<Member> {
  const id = `tn-${letters(10, random)}`;
  // With a digit: words of letters are stemmed where they are indexed.
  const canary = `qzcnry${letters(16, random)}7`;
  const requestsPerMinute = 1_000_000 + index;
  ownership.add(id, id, canary);
  await admin('POST', '/admin/v1/tenants', { id, name: canary, tier: 'test', limits: { requests_per_minute: requestsPerMinute } });
  const { key, id: keyId } = json<{ readonly key: string; readonly id: string }>(
    await admin('POST', `/admin/v1/tenants/${id}/keys`, { name: canary }),
  );
  const own = { id, key };
  const ask = async <T>(method: Sending['method'], path: string, body?: unknown) => json<T>(await send(own, { method, path, body }));
  const form = new FormData();
  form.set('purpose', 'assistants');
  form.set('file', new File([`# Vault\n\nThe vault word of this house is ${canary}. It is spoken once.\n`], `${canary}.md`));
  const { id: fileId } = json<{ readonly id: string }>(await send(own, { method: 'POST', path: '/v1/files', body: form }));
  const { id: storeId } = await ask<{ readonly id: string }>('POST', '/v1/vector_stores', { name: canary, file_ids: [fileId] });
  const said = await ask<{ readonly id: string; readonly output: readonly { readonly id: string }[] }>('POST', '/v1/responses', {
    model: 'echo',
    input: `first ${canary}`,
  });
  const answer = await send(own, { method: 'POST', path: '/v1/embeddings', body: { model: 'local-hash-384', input: canary } });
  const status = async () => (await ask<{ readonly status: string }>('GET', `/v1/vector_stores/${storeId}`)).status;
  for (let looks = 0; (await status()) !== 'completed'; looks++) {
    if (looks > 500) throw new Error(`the file of ${id} was not indexed`);
    await wait(20);
  }
  ownership.add(id, fileId, storeId, said.id, ...said.output.map((item) => item.id));
  return { ...own, canary, keyId, requestsPerMinute, fileId, storeId, responseId: said.id, embedding: vectorOf(answer.text) };
}

/** The vector alone, as text. */
export function vectorOf(text: string): string {
  return JSON.stringify((JSON.parse(text) as { readonly data: readonly { readonly embedding: unknown }[] }).data[0]?.embedding);
}

function json<T>(answer: Answered): T {
  if (answer.status >= 300) throw new Error(`status ${answer.status}: ${answer.text}`);
  return JSON.parse(answer.text) as T;
}

function letters(count: number, random: Random): string {
  return Array.from({ length: count }, () => String.fromCharCode(97 + Math.floor(random.next() * 26))).join('');
}

function note(served: Map<Socket, Set<string>>, socket: Socket, tenant: string): void {
  const tenants = served.get(socket) ?? new Set();
  served.set(socket, tenants.add(tenant));
}

interface Exchanging {
  readonly agent: Agent;
  readonly key: string;
  readonly sending: Sending;
  readonly onSocket: (socket: Socket) => void;
}

async function exchange(baseUrl: string, { agent, key, sending, onSocket }: Exchanging): Promise<Answered> {
  const { method, path, body, leaveAfterBytes = Number.POSITIVE_INFINITY } = sending;
  // `Response` writes the multipart form.
  const encoded = body instanceof FormData ? new Response(body) : undefined;
  const payload = encoded ? Buffer.from(await encoded.arrayBuffer()) : body === undefined ? undefined : Buffer.from(JSON.stringify(body));
  const headers = {
    authorization: `Bearer ${key}`,
    ...(payload && {
      'content-type': encoded?.headers.get('content-type') ?? 'application/json',
      'content-length': String(payload.length),
    }),
    ...sending.headers,
  };
  return new Promise((resolve, reject) => {
    const request = httpRequest(baseUrl + path, { method, agent, headers }, (response) => {
      let text = '';
      const done = () => resolve({ status: response.statusCode ?? 0, headers: response.headers, text });
      response.setEncoding('utf8');
      response.on('data', (piece: string) => {
        text += piece;
        if (text.length < leaveAfterBytes) return;
        done();
        request.destroy();
      });
      response.on('end', done).on('error', () => {});
    });
    request.on('socket', onSocket).on('error', reject).end(payload);
  });
}
