/**
 * V and K: what a tenant can pull out of its own stores with another's words. The victim's exact text, its twin, the middle of all its texts, its
 * rarest word, its attributes, in all writings a search may understand. The API takes no vectors, so a foreign embedding is asked for by the text that has it.
 */
import type { SeenAnswer } from '../attempt.ts';
import type { CanaryTenant } from '../canary-tenant.ts';
import { catalogueSubjects, twinText } from '../canary-texts.ts';
import { itemsOf, outlineOf, type Pair, type ProbeContext } from './probe-context.ts';

interface SearchProbe {
  readonly id: string;
  readonly attempt: string;
  readonly surface: 'chunks' | 'attributes';
  readonly body: (victim: CanaryTenant) => Readonly<Record<string, unknown>>;
  /** What the owner gets with the same body. */
  readonly finds: (victim: CanaryTenant, answer: SeenAnswer) => boolean;
  /** The attacker must get nothing at all. */
  readonly empty?: boolean;
  readonly fullOnly?: boolean;
}

const findsVault = (victim: CanaryTenant, answer: SeenAnswer) => resultsOf(answer).some((hit) => hit.fileId === victim.ids.fileId);
const findsTwin = ({ texts }: CanaryTenant, answer: SeenAnswer) => resultsOf(answer)[0]?.text.includes(texts.secrets.twin) ?? false;

const searchProbes: readonly SearchProbe[] = [
  { id: 'V1', attempt: 'the victim’s exact text', surface: 'chunks', body: ({ texts }) => ({ query: texts.vault }), finds: findsVault },
  {
    id: 'V2',
    attempt: 'the text whose embedding is the victim’s own',
    surface: 'chunks',
    body: () => ({ query: twinText(''), max_num_results: 1 }),
    finds: findsTwin,
  },
  {
    id: 'V3',
    attempt: 'all texts of the victim at once',
    surface: 'chunks',
    body: ({ texts }) => ({ query: [`${texts.vault} ${texts.twin}`, texts.twin] }),
    finds: findsVault,
    fullOnly: true,
  },
  {
    id: 'V4',
    attempt: 'as many results as there can be',
    surface: 'chunks',
    body: ({ texts }) => ({ query: texts.bait, max_num_results: 50 }),
    finds: findsVault,
  },
  {
    id: 'V5',
    attempt: 'a filter that names the victim',
    surface: 'attributes',
    body: ({ texts }) => ({ query: 'vault word', filters: { type: 'eq', key: 'house', value: texts.bait } }),
    finds: findsVault,
    empty: true,
  },
  {
    id: 'V5',
    attempt: 'a filter that anything passes',
    surface: 'attributes',
    body: ({ texts }) => ({ query: texts.bait, max_num_results: 50, filters: { type: 'ne', key: 'house', value: 'nobody' } }),
    finds: findsVault,
    fullOnly: true,
  },
  { id: 'V6', attempt: 'the victim’s rarest word', surface: 'chunks', body: ({ texts }) => ({ query: texts.bait }), finds: findsVault },
  {
    id: 'K1',
    attempt: 'the beginning of a word',
    surface: 'chunks',
    body: ({ texts }) => ({ query: `${texts.bait.slice(0, 9)} ${texts.bait.slice(0, 9)}*` }),
    finds: () => true,
    fullOnly: true,
  },
  {
    id: 'K2',
    attempt: 'a word misspelt and in upper case',
    surface: 'chunks',
    body: ({ texts }) => ({ query: [texts.bait.toUpperCase(), `${texts.bait.slice(0, -1)}x`] }),
    finds: findsVault,
    fullOnly: true,
  },
  {
    id: 'K3',
    attempt: 'search operators',
    surface: 'chunks',
    body: ({ texts }) => ({ query: `"${texts.bait}" | (${texts.bait} & !zebra) <-> * ' OR 1=1 --` }),
    finds: findsVault,
    fullOnly: true,
  },
];

export async function probeSearch(context: ProbeContext): Promise<void> {
  for (const probe of searchProbes) {
    if (probe.fullOnly === true && context.kind === 'smoke') continue;
    const isPossible = (tenant: CanaryTenant) => probe.id !== 'V2' || tenant.enrolled.kind === 'canary';
    const controls = new Map<CanaryTenant, boolean>();
    for (const tenant of context.tenants.filter(isPossible)) {
      controls.set(tenant, probe.finds(tenant, await search(tenant, probe.body(tenant))));
    }
    for (const pair of context.pairs) {
      if (isPossible(pair.victim)) await probePair(context, pair, { probe, control: controls.get(pair.victim) ?? false });
    }
  }
  if (context.kind === 'full') await probeInterference(context);
}

async function probePair(
  context: ProbeContext,
  pair: Pair,
  { probe, control }: { readonly probe: SearchProbe; readonly control: boolean },
) {
  const { attacker, victim } = pair;
  const answer = await search(attacker, probe.body(victim));
  const hits = resultsOf(answer);
  const foreign = hits.filter((hit) => !attacker.fileIds.has(hit.fileId) || holdsMarkOf(victim, hit.text));
  context.book.add({
    id: probe.id,
    surface: probe.surface,
    attacker: attacker.name,
    victim: victim.name,
    attempt: probe.attempt,
    expected: probe.empty === true ? 'no result' : 'own results alone',
    got: foreign.length > 0 ? `${foreign.length} foreign of ${hits.length} results` : `${hits.length} own results, status ${answer.status}`,
    control,
    leaked: foreign.length > 0 || answer.foreign.length > 0 || (probe.empty === true && hits.length > 0),
    unclear: answer.status !== 200,
    ms: answer.durationMs,
    answer,
  });
}

function holdsMarkOf({ texts }: CanaryTenant, text: string): boolean {
  return [texts.bait, texts.fact, ...Object.values(texts.secrets)].some((mark) => text.includes(mark));
}

/** V8: what a tenant gets is the same to the last byte whether a neighbour holds much or little of the same. */
async function probeInterference(context: ProbeContext): Promise<void> {
  const body = { query: twinText(''), max_num_results: 10 };
  const canaries = context.tenants.filter(({ enrolled }) => enrolled.kind === 'canary');
  for (const victim of canaries) {
    const others = canaries.filter((tenant) => tenant !== victim);
    const before = new Map<CanaryTenant, string>();
    for (const other of others) before.set(other, outlineOf(await search(other, body)));
    const crowd = await crowdStore(victim);
    const grown = (await search(victim, { ...body, max_num_results: 50 })).body;
    for (const attacker of others) {
      const answer = await search(attacker, body);
      const isSame = before.get(attacker) === outlineOf(answer);
      context.book.add({
        id: 'V8',
        surface: 'chunks',
        attacker: attacker.name,
        victim: victim.name,
        attempt: 'results, scores and counts while the victim’s store grows with near-duplicates',
        expected: 'the same to the last byte',
        got: isSame ? 'the same' : 'changed',
        control: grown.includes(crowd.fileId),
        leaked: !isSame && answer.status === 200,
        unclear: answer.status !== 200,
        ms: answer.durationMs,
        answer,
      });
    }
    await crowd.remove();
  }
}

/** A second file of near-duplicates in the victim's store, indexed. */
async function crowdStore(victim: CanaryTenant) {
  const { caller, ids, texts } = victim;
  const form = new FormData();
  form.set('purpose', 'assistants');
  form.set(
    'file',
    new File(
      [Array.from({ length: 8 }, (_, index) => `${twinText(texts.bait)} Round ${index}.`).join('\n')],
      `crowd-${texts.secrets.filename}.md`,
    ),
  );
  const encoded = new Response(form);
  const { id: fileId } = await caller.need<{ readonly id: string }>({
    method: 'POST',
    path: '/v1/files',
    headers: { 'content-type': encoded.headers.get('content-type') ?? '' },
    body: Buffer.from(await encoded.arrayBuffer()),
  });
  const files = `/v1/vector_stores/${ids.storeId}/files`;
  const chunking_strategy = { type: 'static', static: { max_chunk_size_tokens: 100, chunk_overlap_tokens: 0 } };
  await caller.need({ method: 'POST', path: files, body: { file_id: fileId, chunking_strategy } });
  for (let looks = 0; looks < crowdLooksMax; looks++) {
    const { status } = await caller.need<{ readonly status: string }>({ method: 'GET', path: `${files}/${fileId}` });
    if (status !== 'in_progress') break;
    await new Promise((resolve) => setTimeout(resolve, crowdPollMs));
  }
  return { fileId, remove: () => caller.need({ method: 'DELETE', path: `/v1/files/${fileId}` }) };
}

const crowdPollMs = 50;
const crowdLooksMax = 400;

export interface RecallFloor {
  readonly min: number | null;
  readonly tenant: string | null;
  readonly queries: number;
}

/** V7: known items of each tenant's own catalogue are among its ten best, and an answer is never short. */
export async function probeRecall(context: ProbeContext): Promise<RecallFloor> {
  let floor: RecallFloor = { min: null, tenant: null, queries: 0 };
  if (context.kind === 'smoke') return floor;
  for (const tenant of context.tenants.filter(({ enrolled }) => enrolled.kind === 'canary')) {
    let found = 0;
    let short = 0;
    let ms = 0;
    for (const subject of catalogueSubjects) {
      const answer = await search(tenant, { query: `the kitchen and the doors of the ${subject}`, max_num_results: 10 });
      const hits = resultsOf(answer);
      if (hits.some(({ text }) => text.includes(`The ${subject}`))) found++;
      if (hits.length < 10) short++;
      ms += answer.durationMs;
    }
    const recall = found / catalogueSubjects.length;
    if (floor.min === null || recall < floor.min) floor = { min: recall, tenant: tenant.name, queries: floor.queries };
    floor = { ...floor, queries: floor.queries + catalogueSubjects.length };
    context.book.add({
      id: 'V7',
      surface: 'chunks',
      attacker: tenant.name,
      victim: tenant.name,
      attempt: `${catalogueSubjects.length} known items of one’s own`,
      expected: `recall at least ${recallFloorMin}, 10 results each`,
      got: `recall ${recall.toFixed(3)}, ${short} short answers`,
      control: true,
      leaked: false,
      unclear: recall < recallFloorMin || short > 0,
      ms,
    });
  }
  return floor;
}

const recallFloorMin = 0.95;

interface Hit {
  readonly fileId: string;
  readonly text: string;
}

function resultsOf(answer: SeenAnswer): readonly Hit[] {
  return itemsOf(answer).map(({ file_id, content, attributes, filename }) => ({
    fileId: String(file_id),
    text: JSON.stringify([content, attributes, filename]),
  }));
}

function search(tenant: CanaryTenant, body: unknown): Promise<SeenAnswer> {
  return tenant.caller.ask({ method: 'POST', path: `/v1/vector_stores/${tenant.ids.storeId}/search`, body });
}
