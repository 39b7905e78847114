/** What OpenAI documents of `max_num_results`, `ranking_options` and `rewrite_query`, through the unchanged SDK: on the search route and in `file_search`. */
import OpenAI, { toFile } from 'openai';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type RunningBulkhead, startBulkhead } from '../support/running-bulkhead.ts';
import { answer, ScriptedUpstream } from '../support/scripted-upstream.ts';

const adminToken = 'admin-token-of-the-search-options-test';
const rewriteTimeoutMs = 3_000;
const texts = [
  ...['roof', 'heating', 'garden', 'cellar'].map((part) => `The landlord repairs the ${part} of the house in spring.`),
  ...Array.from({ length: 56 }, (_, index) => `Flat ${index} is let to tenant ${index}; pets need consent.`),
];

interface World {
  readonly bulkhead: RunningBulkhead;
  readonly client: OpenAI;
  readonly storeId: string;
}

let upstream: ScriptedUpstream;
/** With a model that rewrites, and without one. */
let model: World;
let rule: World;

const configuration = (rewriteModel: string) => `
auth: { adminToken: ${adminToken} }
tiers: { test: { weight: 1 } }
providers: [ { id: scripted, kind: openai-compatible, baseUrl: "${upstream.baseUrl}" }, { id: sim, kind: simulated } ]
models:
  - { id: rewriter, deployments: [ { provider: scripted, model: rewriter } ] }
  - { id: chat, deployments: [ { provider: sim, model: sim-fast } ] }
retrieval: { ${rewriteModel} }
bounds: { rewriteTimeoutMs: ${rewriteTimeoutMs} }
`;

async function openWorld(rewriteModel: string): Promise<World> {
  const bulkhead = await startBulkhead({ config: configuration(rewriteModel) });
  const admin = async (path: string, body: unknown) => {
    const headers = { authorization: `Bearer ${adminToken}`, 'content-type': 'application/json' };
    const sent = await fetch(`${bulkhead.baseUrl}/admin/v1${path}`, { method: 'POST', headers, body: JSON.stringify(body) });
    return (await sent.json()) as { readonly key: string };
  };
  await admin('/tenants', { id: 'acme', tier: 'test' });
  const { key } = await admin('/tenants/acme/keys', { name: 'k' });
  const client = new OpenAI({ baseURL: `${bulkhead.baseUrl}/v1`, apiKey: key, maxRetries: 0 });
  const store = await client.vectorStores.create({ name: 'house' });
  const files = await Promise.all(
    texts.map(async (text, index) => client.files.create({ file: await toFile(Buffer.from(text), `${index}.txt`), purpose: 'assistants' })),
  );
  await client.vectorStores.fileBatches.createAndPoll(store.id, { file_ids: files.map((file) => file.id) });
  return { bulkhead, client, storeId: store.id };
}

beforeAll(async () => {
  upstream = await ScriptedUpstream.start(answer(500, {}));
  [model, rule] = [await openWorld('rewriteModel: rewriter'), await openWorld('')];
}, 120_000);
afterAll(async () => {
  await model.bulkhead[Symbol.asyncDispose]();
  await rule.bulkhead[Symbol.asyncDispose]();
  await upstream[Symbol.asyncDispose]();
});

type SearchBody = OpenAI.VectorStoreSearchParams;
/** What the SDK's page leaves out is read from the answer itself. */
async function search({ client, storeId }: World, body: Partial<SearchBody> & { readonly query: SearchBody['query'] }) {
  const response = await client.vectorStores.search(storeId, body).asResponse();
  return (await response.json()) as {
    readonly search_query: readonly string[];
    readonly data: readonly OpenAI.VectorStoreSearchResponse[];
  };
}

type FileSearch = OpenAI.Responses.FileSearchTool;
async function fileSearch({ client, storeId }: World, input: string, tool: Partial<FileSearch> = {}) {
  const response = await client.responses.create({
    model: 'chat',
    input,
    tools: [{ type: 'file_search', vector_store_ids: [storeId], ...tool }],
    include: ['file_search_call.results'],
  });
  const call = response.output.find((item) => item.type === 'file_search_call');
  if (call === undefined) throw new Error('no search was made');
  return { queries: call.queries, results: call.results ?? [] };
}

const question = 'Please tell me who repairs the roof of the house?';
const refusal = (param: string) => expect.objectContaining({ status: 400, param });
/** Past the SDK's types. */
const unchecked = <Shape>(body: Record<string, unknown>) => body as unknown as Shape;

describe('bounds of a search', () => {
  const both: readonly [string, Record<string, unknown>, 'taken' | 'refused'][] = [
    ['max_num_results', { max_num_results: 1 }, 'taken'],
    ['max_num_results', { max_num_results: 50 }, 'taken'],
    ['max_num_results', { max_num_results: 0 }, 'refused'],
    ['max_num_results', { max_num_results: 51 }, 'refused'],
    ['max_num_results', { max_num_results: 1.5 }, 'refused'],
    ['max_num_results', { max_num_results: '10' }, 'refused'],
    ['ranking_options.score_threshold', { ranking_options: { score_threshold: 0 } }, 'taken'],
    ['ranking_options.score_threshold', { ranking_options: { score_threshold: 1 } }, 'taken'],
    ['ranking_options.score_threshold', { ranking_options: { score_threshold: -0.001 } }, 'refused'],
    ['ranking_options.score_threshold', { ranking_options: { score_threshold: 1.001 } }, 'refused'],
    ['ranking_options.score_threshold', { ranking_options: { score_threshold: '0.5' } }, 'refused'],
    ['ranking_options.ranker', { ranking_options: { ranker: 'auto' } }, 'taken'],
    ['ranking_options.ranker', { ranking_options: { ranker: 'default-2024-11-15' } }, 'taken'],
    ['ranking_options.ranker', { ranking_options: { ranker: 'best' } }, 'refused'],
  ];
  const searchOnly: typeof both = [
    ['ranking_options.ranker', { ranking_options: { ranker: 'none' } }, 'taken'],
    ['rewrite_query', { rewrite_query: true }, 'taken'],
    ['rewrite_query', { rewrite_query: false }, 'taken'],
    ['rewrite_query', { rewrite_query: 'yes' }, 'refused'],
    ['rewrite_query', { rewrite_query: 1 }, 'refused'],
    ['query', { query: 'r'.repeat(4_096) }, 'taken'],
    ['query', { query: 'r'.repeat(4_097) }, 'refused'],
    ['query', { query: '' }, 'refused'],
    ['query', { query: Array.from({ length: 8 }, () => 'roof') }, 'taken'],
    ['query', { query: Array.from({ length: 9 }, () => 'roof') }, 'refused'],
    ['query', { query: [] }, 'refused'],
  ];
  const toolOnly: typeof both = [
    ['ranking_options.ranker', { ranking_options: { ranker: 'none' } }, 'refused'],
    ['ranking_options.hybrid_search', { ranking_options: { hybrid_search: { embedding_weight: 0.5, text_weight: 0 } } }, 'taken'],
    ['ranking_options.hybrid_search', { ranking_options: { hybrid_search: { embedding_weight: 0, text_weight: 1_000 } } }, 'taken'],
    ['ranking_options.hybrid_search', { ranking_options: { hybrid_search: { embedding_weight: 0, text_weight: 0 } } }, 'refused'],
    ['ranking_options.hybrid_search.text_weight', { ranking_options: { hybrid_search: { embedding_weight: 1 } } }, 'refused'],
    [
      'ranking_options.hybrid_search.text_weight',
      { ranking_options: { hybrid_search: { embedding_weight: 1, text_weight: 1_001 } } },
      'refused',
    ],
    [
      'ranking_options.hybrid_search.embedding_weight',
      { ranking_options: { hybrid_search: { embedding_weight: -1, text_weight: 1 } } },
      'refused',
    ],
  ];

  it.each([...both, ...searchOnly])('on the route, %s: %j is %s', async (param, body, verdict) => {
    const asked = search(rule, unchecked({ query: 'roof', ...body }));
    if (verdict === 'taken') expect((await asked).data.length).toBeLessThanOrEqual(50);
    else await expect(asked).rejects.toEqual(refusal(param));
  });

  it.each([...both, ...toolOnly])('in file_search, %s: %j is %s', async (param, body, verdict) => {
    const asked = fileSearch(rule, 'roof', unchecked(body));
    if (verdict === 'taken') expect((await asked).results.length).toBeLessThanOrEqual(50);
    else await expect(asked).rejects.toEqual(refusal(`tools.0.${param}`));
  });

  it('defaults to 10 results on the route and 20 in file_search, and gives as many as are asked for', async () => {
    expect((await search(rule, { query: 'house' })).data).toHaveLength(10);
    expect((await search(rule, { query: 'house', max_num_results: 50 })).data).toHaveLength(50);
    expect((await search(rule, { query: 'house', max_num_results: 1 })).data).toHaveLength(1);
    expect((await fileSearch(rule, 'house')).results).toHaveLength(20);
    expect((await fileSearch(rule, 'house', { max_num_results: 3 })).results).toHaveLength(3);
  });
});

describe('a score', () => {
  it('is 1 for what is first by words and by vector, falls, and the threshold takes what reaches it', async () => {
    const all = (await search(rule, { query: texts[0] ?? '', max_num_results: 50 })).data;
    const scores = all.map((item) => item.score);
    expect(scores[0]).toBe(1);
    expect(scores).toEqual(scores.toSorted((left, right) => right - left));
    for (const at of [1, 7, 40]) {
      const threshold = scores[at] ?? 0;
      const reached = (await search(rule, { query: texts[0] ?? '', max_num_results: 50, ranking_options: { score_threshold: threshold } }))
        .data;
      expect(reached).toEqual(all.filter((item) => item.score >= threshold));
      const { results } = await fileSearch(rule, texts[0] ?? '', { max_num_results: 50, ranking_options: { score_threshold: threshold } });
      expect(results.map((item) => item.score)).toEqual(reached.map((item) => item.score));
    }
    const best = (await search(rule, { query: texts[0] ?? '', ranking_options: { score_threshold: 1 } })).data;
    expect(best.map((item) => item.content[0]?.text)).toEqual([texts[0]]);
  });

  it('weighs the arms as file_search asks: by words alone, what holds no word of the question comes after everything', async () => {
    const weighed = (embedding_weight: number, text_weight: number) =>
      fileSearch(rule, 'consent', {
        max_num_results: 50,
        ranking_options: { hybrid_search: { embedding_weight, text_weight } } as FileSearch['ranking_options'] & object,
      });
    const { results } = await weighed(0, 1);
    expect(results.slice(0, 46).every((item) => item.text?.includes('consent'))).toBe(true);
    expect(results[0]?.score).toBeGreaterThan(0.99);
    const byVector = (await weighed(1, 0)).results;
    const byBoth = (await weighed(1, 1)).results;
    expect(byVector.map((item) => item.file_id)).not.toEqual(results.map((item) => item.file_id));
    expect(byBoth.map((item) => item.score)).not.toEqual(byVector.map((item) => item.score));
  });
});

describe('rewrite_query', () => {
  const says = (content: unknown) =>
    answer(200, {
      id: 'c',
      object: 'chat.completion',
      created: 1,
      model: 'rewriter',
      choices: [{ index: 0, message: { role: 'assistant', content }, finish_reason: 'stop' }],
      usage: { prompt_tokens: 7_000, completion_tokens: 5, total_tokens: 7_005 },
    });
  const spentTokens = async () => {
    const response = await fetch(`${model.bulkhead.baseUrl}/admin/v1/tenants/acme/usage?group_by=model`, {
      headers: { authorization: `Bearer ${adminToken}` },
    });
    const { data } = (await response.json()) as { data: { model: string; input_tokens: number }[] };
    return data.find((row) => row.model === 'rewriter')?.input_tokens ?? 0;
  };

  it('is off unless asked for: what was asked is searched, and no model hears of it', async () => {
    const heard = upstream.received.length;
    expect((await search(model, { query: question })).search_query).toEqual([question]);
    expect((await search(model, { query: [question, 'roof'], rewrite_query: false })).search_query).toEqual([question, 'roof']);
    expect(upstream.received).toHaveLength(heard);
  });

  it('searches by what the model says, on the tenant’s bill, and shows it', async () => {
    upstream.answerWith(says('  heating repairs '));
    const before = await spentTokens();
    const found = await search(model, { query: question, rewrite_query: true });
    expect(found.search_query).toEqual(['heating repairs']);
    expect(found.data[0]?.content[0]?.text).toBe(texts[1]);
    expect(upstream.received.at(-1)?.body).toMatchObject({
      model: 'rewriter',
      messages: [{ role: 'system' }, { role: 'user', content: question }],
    });
    expect((await spentTokens()) - before).toBe(7_000);
    expect((await search(model, { query: [question, 'x'], rewrite_query: true })).search_query).toEqual([
      'heating repairs',
      'heating repairs',
    ]);
    const asked = await fileSearch(model, question);
    expect(asked.queries).toEqual(['heating repairs']);
    expect(asked.results[0]?.text).toBe(texts[1]);
  });

  it.each<[string, Parameters<ScriptedUpstream['answerWith']>[0]]>([
    ['fails', answer(500, { error: { message: 'broken' } })],
    ['is refused', answer(400, { error: { message: 'no' } })],
    ['says nothing', says('')],
    ['says too much', says('one\ntwo')],
    ['says far too much', says('w'.repeat(513))],
    ['says something that is no text', says([{ type: 'text' }])],
    ['never answers', () => {}],
  ])('searches what was asked when the model %s', async (_name, script) => {
    upstream.answerWith(script);
    const startedAtMs = performance.now();
    const found = await search(model, { query: question, rewrite_query: true });
    expect(found.search_query).toEqual([question]);
    expect(found.data.map((item) => item.content[0]?.text)).toContain(texts[0]);
    expect(performance.now() - startedAtMs).toBeLessThan(rewriteTimeoutMs + 5_000);
    expect((await fileSearch(model, question)).queries).toEqual([question]);
  });

  it('takes the longest answer that is allowed', async () => {
    upstream.answerWith(says('w'.repeat(512)));
    expect((await search(model, { query: question, rewrite_query: true })).search_query).toEqual(['w'.repeat(512)]);
  });

  it('strips by rule where no model is configured, on the route alone', async () => {
    const found = await search(rule, { query: [question, 'Wer repariert das Dach?'], rewrite_query: true });
    expect(found.search_query).toEqual(['repairs roof house', 'Wer repariert das Dach?']);
    expect((await fileSearch(rule, question)).queries).toEqual([question]);
  });
});

it('a model for rewriting that does not exist is a mistake of the configuration', async () => {
  await expect(startBulkhead({ config: configuration('rewriteModel: nobody') })).rejects.toThrow(
    'retrieval.rewriteModel: there is no chat model nobody',
  );
});
