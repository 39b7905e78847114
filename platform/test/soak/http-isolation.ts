/**
 * The same over HTTP, against a whole Bulkhead: own and foreign ids, hostile filters, uploads and deletions while others search. Every answer is read
 * for ids and canaries of other tenants.
 */
import { seededRandom } from '../../src/primitives/random.ts';
import { type Member, openWorld, type World } from '../isolation/confusion-world.ts';

export interface HttpSoakReport {
  readonly operations: number;
  readonly foreign: number;
  readonly wrong: number;
  /** Answered 503: the machine was too busy, which is nobody's leak. */
  readonly refused: number;
  readonly examples: readonly string[];
  readonly seconds: number;
}

interface Turn {
  readonly world: World;
  readonly random: { next(): number };
  readonly me: Member;
  readonly other: Member;
  /** Files that were uploaded and not deleted yet, by member. */
  readonly late: Map<string, string[]>;
  readonly send: World['send'];
  readonly wrong: (what: string) => void;
}

const tenants = 8;
const lateFilesMax = 3;
const examplesMax = 20;

export async function soakHttp(options: {
  readonly operations: number;
  readonly seed: number;
  readonly clients?: number;
}): Promise<HttpSoakReport> {
  const random = seededRandom(options.seed);
  const clients = options.clients ?? 6;
  await using world = await openWorld({ tenants, connections: clients, random });
  const startedMs = performance.now();
  const late = new Map<string, string[]>();
  const wrong: string[] = [];
  let refused = 0;
  const send: World['send'] = async (member, sending) => {
    const answer = await world.send(member, sending);
    if (answer.status === 503) throw new TooBusy();
    return answer;
  };
  let left = options.operations;
  const client = async () => {
    while (left-- > 0) {
      const [me, other] = pair(world.members, random);
      const operation = operations[Math.floor(random.next() * operations.length)] ?? searchOwn;
      await operation({ world, random, me, other, late, send, wrong: (what) => wrong.push(what) }).catch((error: unknown) => {
        if (error instanceof TooBusy) refused++;
        else wrong.push(String(error));
      });
    }
  };
  await Promise.all(Array.from({ length: clients }, client));
  const { violations } = world.ownership;
  return {
    operations: options.operations,
    foreign: violations.length,
    wrong: wrong.length,
    refused,
    examples: [...violations, ...wrong].slice(0, examplesMax),
    seconds: (performance.now() - startedMs) / 1_000,
  };
}

class TooBusy extends Error {}

const operations = [searchOwn, searchOwn, searchOwn, searchForeign, readForeign, changeForeign, list, upload, remove];

async function searchOwn({ world, send, random, me, other, wrong }: Turn): Promise<void> {
  const filter = filters[Math.floor(random.next() * filters.length)];
  // Everybody's sentence differs by the canary alone; asking for another's finds one's own.
  const query = `The vault word of this house is ${random.next() < 0.5 ? me.canary : other.canary}`;
  const body = { query, max_num_results: 1 + Math.floor(random.next() * 50), ...(filter !== undefined && { filters: filter }) };
  const { status, text } = await send(me, { method: 'POST', path: `/v1/vector_stores/${me.storeId}/search`, body });
  world.ownership.check(me.id, 'search', text, [other.canary]);
  const found = status === 200 ? (JSON.parse(text) as { readonly data: readonly unknown[] }).data.length : undefined;
  if (found === undefined || (filter === undefined && found === 0)) wrong(`search of ${me.id}: ${status}, ${found} results`);
}

async function searchForeign({ world, send, me, other, wrong }: Turn): Promise<void> {
  const body = { query: 'the vault word' };
  const answer = await send(me, { method: 'POST', path: `/v1/vector_stores/${other.storeId}/search`, body });
  world.ownership.check(me.id, 'search of a foreign store', answer.text, [other.storeId]);
  if (answer.status !== 404) wrong(`${me.id} searched the store of ${other.id}: ${answer.status}`);
}

async function readForeign({ world, send, random, me, other, wrong }: Turn): Promise<void> {
  const paths = [
    `/v1/files/${other.fileId}`,
    `/v1/files/${other.fileId}/content`,
    `/v1/vector_stores/${other.storeId}`,
    `/v1/vector_stores/${other.storeId}/files`,
    `/v1/vector_stores/${me.storeId}/files/${other.fileId}`,
    `/v1/vector_stores/${other.storeId}/files/${other.fileId}/content`,
    `/v1/responses/${other.responseId}`,
  ];
  const path = paths[Math.floor(random.next() * paths.length)] ?? '';
  const answer = await send(me, { method: 'GET', path });
  world.ownership.check(me.id, path, answer.text, [other.fileId, other.storeId, other.responseId]);
  if (answer.status !== 404) wrong(`${me.id} read ${path}: ${answer.status}`);
}

async function changeForeign({ world, send, random, me, other, wrong }: Turn): Promise<void> {
  const changes = [
    { method: 'DELETE', path: `/v1/files/${other.fileId}` },
    { method: 'DELETE', path: `/v1/vector_stores/${other.storeId}` },
    { method: 'POST', path: `/v1/vector_stores/${me.storeId}/files`, body: { file_id: other.fileId } },
    { method: 'POST', path: `/v1/vector_stores/${other.storeId}/files/${other.fileId}`, body: { attributes: { taken: true } } },
  ] as const;
  const change = changes[Math.floor(random.next() * changes.length)] ?? changes[0];
  const answer = await send(me, change);
  world.ownership.check(me.id, change.path, answer.text, [other.fileId, other.storeId]);
  if (answer.status !== 404) wrong(`${me.id} changed ${change.path}: ${answer.status}`);
}

async function list({ world, send, random, me, wrong }: Turn): Promise<void> {
  const paths = ['/v1/files', '/v1/vector_stores', `/v1/vector_stores/${me.storeId}/files`];
  const path = paths[Math.floor(random.next() * paths.length)] ?? '';
  const answer = await send(me, { method: 'GET', path });
  world.ownership.check(me.id, path, answer.text);
  if (answer.status !== 200 || !answer.text.includes('"id"')) wrong(`${me.id} listed ${path}: ${answer.status}`);
}

async function upload({ world, send, me, late, wrong }: Turn): Promise<void> {
  if ((late.get(me.id) ?? []).length >= lateFilesMax) return;
  const form = new FormData();
  form.set('purpose', 'assistants');
  form.set('file', new File([`The vault word of this house is ${me.canary}. It is spoken once.`], 'late.md'));
  const answer = await send(me, { method: 'POST', path: '/v1/files', body: form });
  const { id } = JSON.parse(answer.text) as { readonly id?: string };
  if (id === undefined) return wrong(`${me.id} uploaded: ${answer.status}`);
  world.ownership.add(me.id, id);
  late.set(me.id, [...(late.get(me.id) ?? []), id]);
  const attached = await send(me, { method: 'POST', path: `/v1/vector_stores/${me.storeId}/files`, body: { file_id: id } });
  // Deleted meanwhile by the same tenant's next turn: absent.
  if (attached.status !== 200 && attached.status !== 404) wrong(`${me.id} attached: ${attached.status}`);
}

async function remove({ send, me, late, wrong }: Turn): Promise<void> {
  const [id, ...rest] = late.get(me.id) ?? [];
  if (id === undefined) return;
  late.set(me.id, rest);
  const answer = await send(me, { method: 'DELETE', path: `/v1/files/${id}` });
  if (answer.status !== 200) wrong(`${me.id} deleted its own file: ${answer.status}`);
}

const filters: readonly unknown[] = [
  undefined,
  undefined,
  { type: 'ne', key: 'tenant_id', value: 'x' },
  { type: 'eq', key: "a' OR true --", value: "' OR '1'='1" },
  {
    type: 'or',
    filters: [
      { type: 'nin', key: '$1::text', value: ['%', '\\', '"'] },
      { type: 'gt', key: 'x', value: 1 },
    ],
  },
];

function pair(members: readonly Member[], random: { next(): number }): readonly [Member, Member] {
  const first = Math.floor(random.next() * members.length);
  const second = (first + 1 + Math.floor(random.next() * (members.length - 1))) % members.length;
  const [me, other] = [members[first], members[second]];
  if (me === undefined || other === undefined) throw new Error('isolation needs two tenants');
  return [me, other];
}
