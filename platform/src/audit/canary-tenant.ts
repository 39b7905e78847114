/** A tenant with canaries in everything it owns, planted through the same routes a client uses, and cleared away through them. */
import { setTimeout as wait } from 'node:timers/promises';
import type { TenantId } from '../primitives/ids.ts';
import { type AuditBook, Caller, type CallerParts, lettersOf, PlantingError, type SeenAnswer } from './attempt.ts';
import type { AuditGround, EnrolledTenant } from './audit-ports.ts';
import { type CanaryTexts, canaryTexts, catalogueText } from './canary-texts.ts';

/** Ids of what a tenant owns, by the names that paths give them. */
export type CanaryIds = {
  readonly storeId: string;
  readonly fileId: string;
  /** A file of the batch. */
  readonly batchFileId: string | undefined;
  readonly batchId: string | undefined;
  readonly responseId: string | undefined;
  readonly tenantId: string;
  readonly keyId: string;
};

export interface CanaryTenant {
  readonly enrolled: EnrolledTenant;
  readonly name: string;
  readonly texts: CanaryTexts;
  readonly ids: CanaryIds;
  /** Every file of its store: what a search may name. */
  readonly fileIds: ReadonlySet<string>;
  readonly key: string;
  readonly caller: Caller;
}

export interface PlantingOptions {
  readonly kind: 'full' | 'smoke';
  /** A chat model to hold a conversation with; undefined: none is held. */
  readonly chatModel: string | undefined;
  readonly ingestionWaitMaxMs: number;
}

export interface Planting {
  readonly ground: AuditGround;
  readonly calling: CallerParts;
  readonly options: PlantingOptions;
}

/** Takes a key for the tenant, clears what an earlier run left, and plants. Throws PlantingError. */
export async function plantCanaries(planting: Planting, enrolled: EnrolledTenant): Promise<CanaryTenant> {
  const { ground, calling, options } = planting;
  const { tenantId, kind } = enrolled;
  const { key, keyId } = await ground.issueKey(tenantId);
  try {
    const caller = new Caller(calling, tenantId, key);
    const texts = canaryTexts(calling.tokens, tenantId);
    calling.facts.set(lettersOf(texts.fact), tenantId);
    if (kind === 'canary') await clearAway(calling, caller, tenantId);
    const isWhole = options.kind === 'full' && kind === 'canary';
    const planted = await plantDocuments(caller, texts, { isWhole, isConsented: kind === 'by consent' });
    const responseId = isWhole && options.chatModel !== undefined ? await converse(caller, texts, options.chatModel) : undefined;
    await untilIndexed(planting, caller, planted.storeId);
    const { storeId, fileId, batchId, fileIds } = planted;
    const ids = { storeId, fileId, batchFileId: fileIds[1], batchId, responseId, tenantId, keyId };
    return { enrolled, name: tenantId, texts, ids, fileIds: new Set(fileIds), key, caller };
  } catch (error) {
    await ground.revokeKey(tenantId, keyId);
    throw error;
  }
}

interface PlantedDocuments {
  readonly storeId: string;
  readonly fileId: string;
  readonly batchId: string | undefined;
  readonly fileIds: readonly string[];
}

async function plantDocuments(
  caller: Caller,
  texts: CanaryTexts,
  { isWhole, isConsented }: { readonly isWhole: boolean; readonly isConsented: boolean },
): Promise<PlantedDocuments> {
  const { secrets, bait } = texts;
  const name = isConsented ? consentedName : 'canaries';
  const store = await caller.need<{ readonly id: string }>({
    method: 'POST',
    path: '/v1/vector_stores',
    body: { name: `${name} ${secrets.storeName}`, metadata: { kept: secrets.metadata } },
  });
  const fileId = await upload(caller, `${secrets.filename}.md`, texts.vault);
  const path = `/v1/vector_stores/${store.id}`;
  await caller.need({
    method: 'POST',
    path: `${path}/files`,
    body: { file_id: fileId, attributes: { house: bait, mark: secrets.attribute } },
  });
  if (isConsented) return { storeId: store.id, fileId, batchId: undefined, fileIds: [fileId] };
  const twinId = await upload(caller, `deliveries-${secrets.filename}.md`, texts.twin);
  const others = isWhole ? [twinId, await upload(caller, `catalogue-${secrets.filename}.md`, catalogueText())] : [twinId];
  const chunking_strategy = { type: 'static', static: { max_chunk_size_tokens: 100, chunk_overlap_tokens: 0 } };
  const batch = await caller.need<{ readonly id: string }>({
    method: 'POST',
    path: `${path}/file_batches`,
    body: { file_ids: others, chunking_strategy },
  });
  return { storeId: store.id, fileId, batchId: batch.id, fileIds: [fileId, ...others] };
}

/** What stands in a tenant's own list while its operator has it audited. */
const consentedName = 'Isolation audit (removed after it)';

async function upload(caller: Caller, filename: string, text: string): Promise<string> {
  const form = new FormData();
  form.set('purpose', 'assistants');
  form.set('file', new File([text], filename));
  // `Response` writes the multipart form.
  const encoded = new Response(form);
  const file = await caller.need<{ readonly id: string }>({
    method: 'POST',
    path: '/v1/files',
    headers: { 'content-type': encoded.headers.get('content-type') ?? '' },
    body: Buffer.from(await encoded.arrayBuffer()),
  });
  return file.id;
}

async function converse(caller: Caller, { secrets }: CanaryTexts, model: string): Promise<string> {
  const said = await caller.need<{ readonly id: string }>({
    method: 'POST',
    path: '/v1/responses',
    body: { model, input: `Please keep ${secrets.conversation} in mind.`, max_output_tokens: 16, metadata: { kept: secrets.conversation } },
  });
  return said.id;
}

const pollMs = 50;

async function untilIndexed({ calling, options }: Planting, caller: Caller, storeId: string): Promise<void> {
  const path = `/v1/vector_stores/${storeId}`;
  const untilMs = performance.now() + options.ingestionWaitMaxMs;
  for (;;) {
    const { status, file_counts: counts } = await caller.need<StoreStatus>({ method: 'GET', path });
    if (counts.failed > 0) throw new PlantingError(`${counts.failed} canary documents could not be indexed`);
    if (status === 'completed' && counts.completed === counts.total) return;
    if (performance.now() > untilMs) throw new PlantingError(`canary documents were not indexed within ${options.ingestionWaitMaxMs} ms`);
    await wait(pollMs, undefined, { signal: calling.signal });
  }
}

interface StoreStatus {
  readonly status: string;
  readonly file_counts: { readonly completed: number; readonly failed: number; readonly total: number };
}

const pagesMax = 20;

/**
 * What earlier runs left. Only things that bear a genuine token of this very tenant: on a system that leaks, lists show what others own, and an audit
 * that deleted whatever it is shown would do the damage it looks for.
 */
async function clearAway({ tokens }: CallerParts, caller: Caller, tenantId: TenantId): Promise<void> {
  for (const path of ['/v1/vector_stores', '/v1/files']) {
    const own: string[] = [];
    let after = '';
    for (let page = 0; page < pagesMax; page++) {
      const { data, has_more, last_id } = await caller.need<ListPage>({ method: 'GET', path: `${path}?limit=100${after}` });
      const isOwn = ({ name, filename }: ListPage['data'][number]) =>
        tokens.find(`${name ?? ''} ${filename ?? ''}`).some(({ token }) => tokens.belongsTo(token, tenantId));
      own.push(...data.filter(isOwn).map(({ id }) => id));
      if (!has_more) break;
      after = `&after=${last_id}`;
    }
    for (const id of own) await caller.ask({ method: 'DELETE', path: `${path}/${id}` });
  }
}

interface ListPage {
  readonly data: readonly { readonly id: string; readonly name?: string; readonly filename?: string }[];
  readonly has_more: boolean;
  readonly last_id: string | null;
}

const clearingMaxMs = 60_000;

/** The owner's own deletions, by route. */
export type OwnDeletions = Readonly<Record<string, SeenAnswer>>;

/**
 * The owner deletes what was planted, which is the positive control of every attempt of others to delete it, and the key ends. Runs on every way
 * out: what fails here is reported, never thrown.
 */
export async function removeCanaries({ ground, calling }: Planting, tenant: CanaryTenant, book: AuditBook): Promise<OwnDeletions> {
  const { ids, enrolled, key } = tenant;
  // A run that was called off still clears up.
  const caller = new Caller({ ...calling, signal: AbortSignal.timeout(clearingMaxMs) }, enrolled.tenantId, key);
  const store = `/v1/vector_stores/${ids.storeId}`;
  const deletions: readonly (readonly [string, string | undefined])[] = [
    ['DELETE /v1/vector_stores/:storeId/files/:fileId', `${store}/files/${ids.fileId}`],
    ['DELETE /v1/vector_stores/:storeId', store],
    ['DELETE /v1/files/:fileId', `/v1/files/${ids.fileId}`],
    ['DELETE /v1/responses/:responseId', ids.responseId === undefined ? undefined : `/v1/responses/${ids.responseId}`],
  ];
  const answers: Record<string, SeenAnswer> = {};
  try {
    for (const [route, path] of deletions) if (path !== undefined) answers[route] = await caller.ask({ method: 'DELETE', path });
    if (enrolled.kind === 'canary') await clearAway(calling, caller, enrolled.tenantId);
  } catch (error) {
    book.add(cleaningFinding(tenant, error));
  } finally {
    await ground.revokeKey(enrolled.tenantId, ids.keyId);
  }
  return answers;
}

function cleaningFinding({ name }: CanaryTenant, error: unknown) {
  const got = error instanceof Error ? error.name : 'unknown error';
  const what = { id: 'R1', surface: 'registry', attacker: name, victim: name, attempt: 'clear the canaries away' } as const;
  return { ...what, expected: 'nothing of them stays', got, control: false, leaked: false, ms: 0 };
}
