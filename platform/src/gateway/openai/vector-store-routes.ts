/** `/v1/vector_stores`: stores, their files, batches of files, and search. */
import { parseAttributeFilter } from '../../rag/filter.ts';
import type { RetrievalPath } from '../../request-path/serve-retrieval.ts';
import type { IngestionStatus } from '../../tenancy/capabilities.ts';
import type { Answer, TenantExchange } from '../exchange.ts';
import type { TenantRoute } from '../route.ts';
import { notFound, pageRequestOf, validateBody } from '../validate.ts';
import { fileBatchShape, listShape, searchResultShape, vectorStoreFileShape, vectorStoreShape } from './shapes.ts';
import {
  attachFileSchema,
  attributesSchema,
  batchFilesOf,
  chunkingOf,
  fileBatchSchema,
  newVectorStoreSchema,
  searchSchema,
  vectorStoreChangesSchema,
} from './vector-store-request.ts';

export interface VectorStoreRouteParts {
  readonly retrieval: RetrievalPath;
  /** What `openai-poll-after-ms` says: how long the SDK waits between polls. */
  readonly pollAfterMs: number;
}

const stores = '/v1/vector_stores';
const store = `${stores}/:storeId`;

export function vectorStoreRoutes(parts: VectorStoreRouteParts): readonly TenantRoute[] {
  const route = (method: TenantRoute['method'], path: string, body: TenantRoute['body'], handle: TenantRoute['handle']): TenantRoute => ({
    auth: 'tenant',
    spends: false,
    method,
    path,
    body,
    handle,
  });
  const polled = (handle: (exchange: TenantExchange) => Promise<unknown>) => async (exchange: TenantExchange) =>
    ok(await handle(exchange), { 'openai-poll-after-ms': String(parts.pollAfterMs) });
  return [
    route('POST', stores, 'optional-json', create),
    route('GET', stores, 'none', list),
    route('GET', store, 'none', retrieve),
    route('POST', store, 'json', update),
    route('DELETE', store, 'none', remove),
    { ...route('POST', `${store}/search`, 'json', (exchange) => search(parts, exchange)), spends: true },
    route('POST', `${store}/files`, 'json', polled(attach)),
    route('GET', `${store}/files`, 'none', listFiles),
    route('GET', `${store}/files/:fileId`, 'none', polled(retrieveFile)),
    route('POST', `${store}/files/:fileId`, 'json', updateFile),
    route('DELETE', `${store}/files/:fileId`, 'none', detach),
    route('GET', `${store}/files/:fileId/content`, 'none', fileContent),
    route('POST', `${store}/file_batches`, 'json', polled(createBatch)),
    route('GET', `${store}/file_batches/:batchId`, 'none', polled(retrieveBatch)),
    route('POST', `${store}/file_batches/:batchId/cancel`, 'optional-json', polled(cancelBatch)),
    route('GET', `${store}/file_batches/:batchId/files`, 'none', listBatchFiles),
  ];
}

async function create(exchange: TenantExchange): Promise<Answer> {
  const body = validateBody(newVectorStoreSchema, exchange.body);
  const chunking = chunkingOf(body.chunking_strategy);
  const { vectorStores } = exchange.scope;
  for (const fileId of body.file_ids ?? []) {
    if ((await exchange.scope.files.get(fileId)) === undefined) throw notFound('file', fileId);
  }
  const created = await vectorStores.create({
    name: body.name ?? '',
    description: body.description ?? undefined,
    metadata: body.metadata ?? {},
    expiresAfterDays: body.expires_after?.days,
  });
  for (const fileId of body.file_ids ?? []) await vectorStores.attachFile(created.id, { fileId, attributes: {}, chunking });
  return ok(vectorStoreShape((await vectorStores.get(created.id)) ?? created));
}

async function list(exchange: TenantExchange): Promise<Answer> {
  const page = await exchange.scope.vectorStores.list(pageRequestOf(exchange.query));
  return ok(listShape(page, vectorStoreShape));
}

async function retrieve(exchange: TenantExchange): Promise<Answer> {
  return ok(vectorStoreShape(found(await exchange.scope.vectorStores.get(storeId(exchange)), exchange)));
}

async function update(exchange: TenantExchange): Promise<Answer> {
  const body = validateBody(vectorStoreChangesSchema, exchange.body);
  const changed = await exchange.scope.vectorStores.update(storeId(exchange), {
    name: body.name ?? undefined,
    metadata: body.metadata ?? undefined,
    expiresAfterDays: body.expires_after === undefined ? undefined : (body.expires_after?.days ?? null),
  });
  return ok(vectorStoreShape(found(changed, exchange)));
}

async function remove(exchange: TenantExchange): Promise<Answer> {
  const id = storeId(exchange);
  if (!(await exchange.scope.vectorStores.delete(id))) throw notFound('vector store', id);
  return ok({ id, object: 'vector_store.deleted', deleted: true });
}

async function search(parts: VectorStoreRouteParts, exchange: TenantExchange): Promise<Answer> {
  const body = validateBody(searchSchema, exchange.body);
  const { chunks, queries } = await parts.retrieval.search({
    scope: exchange.scope,
    requestId: exchange.requestId,
    signal: exchange.signal,
    endpoint: 'search',
    storeIds: [storeId(exchange)],
    queries: typeof body.query === 'string' ? [body.query] : body.query,
    rewrite: body.rewrite_query === true ? 'always' : 'never',
    limit: body.max_num_results ?? 10,
    scoreThreshold: body.ranking_options?.score_threshold ?? 0,
    weights: undefined,
    filter: body.filters === undefined || body.filters === null ? undefined : parseAttributeFilter(body.filters, 'filters'),
  });
  const data = chunks.map(searchResultShape);
  return ok({ object: 'vector_store.search_results.page', search_query: queries, data, has_more: false, next_page: null });
}

async function attach(exchange: TenantExchange): Promise<unknown> {
  const body = validateBody(attachFileSchema, exchange.body);
  const file = { fileId: body.file_id, attributes: body.attributes ?? {}, chunking: chunkingOf(body.chunking_strategy) };
  found(await exchange.scope.vectorStores.get(storeId(exchange)), exchange);
  const attached = await exchange.scope.vectorStores.attachFile(storeId(exchange), file);
  if (attached === undefined) throw notFound('file', body.file_id);
  return vectorStoreFileShape(attached);
}

async function listFiles(exchange: TenantExchange): Promise<Answer> {
  const filter = { status: statusFilter(exchange.query) };
  const page = await exchange.scope.vectorStores.listFiles(storeId(exchange), pageRequestOf(exchange.query), filter);
  return ok(listShape(found(page, exchange), vectorStoreFileShape));
}

async function retrieveFile(exchange: TenantExchange): Promise<unknown> {
  const file = await exchange.scope.vectorStores.getFile(storeId(exchange), fileId(exchange));
  if (file === undefined) throw notFound('file', fileId(exchange));
  return vectorStoreFileShape(file);
}

async function updateFile(exchange: TenantExchange): Promise<Answer> {
  const body = validateBody(attributesSchema, exchange.body);
  const file = await exchange.scope.vectorStores.updateFileAttributes(storeId(exchange), fileId(exchange), body.attributes ?? {});
  if (file === undefined) throw notFound('file', fileId(exchange));
  return ok(vectorStoreFileShape(file));
}

async function detach(exchange: TenantExchange): Promise<Answer> {
  const id = fileId(exchange);
  if (!(await exchange.scope.vectorStores.detachFile(storeId(exchange), id))) throw notFound('file', id);
  return ok({ id, object: 'vector_store.file.deleted', deleted: true });
}

async function fileContent(exchange: TenantExchange): Promise<Answer> {
  const texts = await exchange.scope.vectorStores.fileContent(storeId(exchange), fileId(exchange));
  if (texts === undefined) throw notFound('file', fileId(exchange));
  const data = texts.map((text) => ({ type: 'text', text }));
  return ok({ object: 'vector_store.file_content.page', data, has_more: false, next_page: null });
}

async function createBatch(exchange: TenantExchange): Promise<unknown> {
  const files = batchFilesOf(validateBody(fileBatchSchema, exchange.body));
  found(await exchange.scope.vectorStores.get(storeId(exchange)), exchange);
  for (const file of files) {
    if ((await exchange.scope.files.get(file.fileId)) === undefined) throw notFound('file', file.fileId);
  }
  const batch = await exchange.scope.vectorStores.createBatch(storeId(exchange), files);
  return fileBatchShape(found(batch, exchange));
}

async function retrieveBatch(exchange: TenantExchange): Promise<unknown> {
  const batch = await exchange.scope.vectorStores.getBatch(storeId(exchange), batchId(exchange));
  if (batch === undefined) throw notFound('file batch', batchId(exchange));
  return fileBatchShape(batch);
}

async function cancelBatch(exchange: TenantExchange): Promise<unknown> {
  const batch = await exchange.scope.vectorStores.cancelBatch(storeId(exchange), batchId(exchange));
  if (batch === undefined) throw notFound('file batch', batchId(exchange));
  return fileBatchShape(batch);
}

async function listBatchFiles(exchange: TenantExchange): Promise<Answer> {
  const id = batchId(exchange);
  if ((await exchange.scope.vectorStores.getBatch(storeId(exchange), id)) === undefined) throw notFound('file batch', id);
  const filter = { status: statusFilter(exchange.query), batchId: id };
  const page = await exchange.scope.vectorStores.listFiles(storeId(exchange), pageRequestOf(exchange.query), filter);
  return ok(listShape(found(page, exchange), vectorStoreFileShape));
}

const statuses = new Set(['in_progress', 'completed', 'failed', 'cancelled']);

function statusFilter(query: URLSearchParams): IngestionStatus | undefined {
  const status = query.get('filter');
  return status !== null && statuses.has(status) ? (status as IngestionStatus) : undefined;
}

function found<T>(value: T | undefined, exchange: TenantExchange): T {
  if (value === undefined) throw notFound('vector store', storeId(exchange));
  return value;
}

function storeId(exchange: TenantExchange): string {
  return exchange.params['storeId'] ?? '';
}

function fileId(exchange: TenantExchange): string {
  return exchange.params['fileId'] ?? '';
}

function batchId(exchange: TenantExchange): string {
  return exchange.params['batchId'] ?? '';
}

function ok(body: unknown, headers: Readonly<Record<string, string>> = {}): Answer {
  return { kind: 'json', status: 200, headers, body };
}
