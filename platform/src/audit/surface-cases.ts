/**
 * How each registered surface is probed. What is registered and has no case here fails the run: a new route, table or job kind brings its case in the
 * same commit.
 */
import type { AuditedRoute } from './audit-ports.ts';
import type { Surface } from './audit-report.ts';
import type { CanaryIds, CanaryTenant } from './canary-tenant.ts';

/** Ids as paths name them; the victim's, or ones that nobody has. */
export type AddressedIds = { readonly [Name in keyof CanaryIds]: string };

export type CursorKind = 'storeId' | 'fileId' | 'batchFileId';

export interface RouteCase {
  readonly surface: Surface;
  /** What a caller sends along. */
  readonly body?: (caller: CanaryTenant) => unknown;
  /** Requests of one's own in which the body names the addressed things. */
  readonly references?: readonly Reference[];
  /** A list or search of one's own: nothing of others may be in it. `cursor`: the kind of id its cursors are. */
  readonly list?: { readonly cursor?: CursorKind };
  /** The owner's own call is made when the canaries are cleared away. */
  readonly isDeletion?: boolean;
  /** Costs tokens of a model. */
  readonly needsModel?: boolean;
  /** Why nothing of a tenant can come out of it. */
  readonly holdsNothing?: string;
}

export interface Reference {
  readonly title: string;
  readonly path: (caller: CanaryTenant) => string;
  readonly body: (caller: CanaryTenant, addressed: AddressedIds, chatModel: string) => unknown;
  /** Needs this of the victim. */
  readonly names: keyof CanaryIds;
  readonly needsModel?: boolean;
}

const fileReferences = (route: string, bodies: Readonly<Record<string, (fileId: string, caller: CanaryTenant) => unknown>>): Reference[] =>
  Object.entries(bodies).map(([title, body]) => ({
    title,
    names: 'fileId',
    path: (caller) => route.replace(':storeId', caller.ids.storeId),
    body: (caller, { fileId }) => body(fileId, caller),
  }));

export const routeCases: Readonly<Record<string, RouteCase>> = {
  'GET /v1/files': { surface: 'files', list: { cursor: 'fileId' } },
  'POST /v1/files': { surface: 'files', holdsNothing: 'takes a body and names nothing; the canaries are planted through it' },
  'GET /v1/files/:fileId': { surface: 'files' },
  'GET /v1/files/:fileId/content': { surface: 'files' },
  'DELETE /v1/files/:fileId': { surface: 'files', isDeletion: true },
  'GET /v1/vector_stores': { surface: 'stores', list: { cursor: 'storeId' } },
  'POST /v1/vector_stores': {
    surface: 'stores',
    references: fileReferences('/v1/vector_stores', {
      'a file in a new store': (fileId, { texts }) => ({ name: `taken ${texts.secrets.storeName}`, file_ids: [fileId] }),
    }),
  },
  'GET /v1/vector_stores/:storeId': { surface: 'stores' },
  'POST /v1/vector_stores/:storeId': {
    surface: 'stores',
    body: ({ texts }) => ({ name: `canaries ${texts.secrets.storeName}` }),
  },
  'DELETE /v1/vector_stores/:storeId': { surface: 'stores', isDeletion: true },
  'POST /v1/vector_stores/:storeId/search': { surface: 'chunks', body: () => ({ query: 'What is the vault word of this house?' }) },
  'GET /v1/vector_stores/:storeId/files': { surface: 'stores', list: { cursor: 'fileId' } },
  'POST /v1/vector_stores/:storeId/files': {
    surface: 'stores',
    body: ({ ids }) => ({ file_id: ids.fileId }),
    references: fileReferences('/v1/vector_stores/:storeId/files', { 'a file in one’s own store': (fileId) => ({ file_id: fileId }) }),
  },
  'GET /v1/vector_stores/:storeId/files/:fileId': { surface: 'stores' },
  'POST /v1/vector_stores/:storeId/files/:fileId': {
    surface: 'attributes',
    body: ({ texts }) => ({ attributes: { house: texts.bait, mark: texts.secrets.attribute } }),
  },
  'DELETE /v1/vector_stores/:storeId/files/:fileId': { surface: 'stores', isDeletion: true },
  'GET /v1/vector_stores/:storeId/files/:fileId/content': { surface: 'chunks' },
  'POST /v1/vector_stores/:storeId/file_batches': {
    surface: 'batches',
    body: ({ ids }) => ({ file_ids: [ids.fileId] }),
    references: fileReferences('/v1/vector_stores/:storeId/file_batches', {
      'a file in a batch': (fileId) => ({ file_ids: [fileId] }),
      'a described file in a batch': (fileId) => ({ files: [{ file_id: fileId }] }),
      'a batch of own and foreign files': (fileId, { ids }) => ({ file_ids: [ids.fileId, fileId] }),
    }),
  },
  'GET /v1/vector_stores/:storeId/file_batches/:batchId': { surface: 'batches' },
  'POST /v1/vector_stores/:storeId/file_batches/:batchId/cancel': { surface: 'batches' },
  'GET /v1/vector_stores/:storeId/file_batches/:batchId/files': { surface: 'batches', list: { cursor: 'batchFileId' } },
  'POST /v1/responses': {
    surface: 'conversations',
    needsModel: true,
    references: [
      {
        title: 'a store in file search',
        names: 'storeId',
        path: () => '/v1/responses',
        body: (_, { storeId }, model) => ({
          model,
          input: 'What is the vault word?',
          store: false,
          max_output_tokens: 16,
          tools: [{ type: 'file_search', vector_store_ids: [storeId] }],
        }),
        needsModel: true,
      },
      {
        title: 'own and foreign stores in file search',
        names: 'storeId',
        path: () => '/v1/responses',
        body: ({ ids }, { storeId }, model) => ({
          model,
          input: 'What is the vault word?',
          store: false,
          max_output_tokens: 16,
          tools: [{ type: 'file_search', vector_store_ids: [ids.storeId, storeId] }],
        }),
        needsModel: true,
      },
      {
        title: 'a conversation to continue',
        names: 'responseId',
        path: () => '/v1/responses',
        body: (_, { responseId }, model) => ({
          model,
          input: 'Go on.',
          store: false,
          max_output_tokens: 16,
          previous_response_id: responseId,
        }),
        needsModel: true,
      },
    ],
  },
  'GET /v1/responses/:responseId': { surface: 'conversations' },
  'DELETE /v1/responses/:responseId': { surface: 'conversations', isDeletion: true },
  'GET /v1/responses/:responseId/input_items': { surface: 'conversations' },
  'POST /v1/chat/completions': { surface: 'models', holdsNothing: 'keeps nothing and names nothing; asked in the interleaved requests' },
  'POST /v1/embeddings': { surface: 'models', holdsNothing: 'keeps nothing and names nothing; asked in the interleaved requests' },
  'GET /v1/models': { surface: 'models', list: {} },
  'GET /v1/models/:modelId': { surface: 'models', holdsNothing: 'models are the platform’s; a tenant’s own models do not exist yet' },
};

/** What each table of tenant data may hold of a canary, and where a row of it must be found for its owner. */
export interface TableCase {
  readonly surface: Surface;
  /** `token`: planted text must be found in it. `rows`: numbers or vectors, of which some must be there. `empty`: need not have any. */
  readonly holds: 'token' | 'rows' | 'empty';
  readonly why: string;
  /** Only a full run plants for it. */
  readonly fullOnly?: boolean;
}

const vectors: TableCase = {
  surface: 'chunks',
  holds: 'empty',
  why: 'vectors; the twin is found by search, in the table of its dimension',
};

export const tableCases: Readonly<Record<string, TableCase>> = {
  chunk: { surface: 'chunks', holds: 'token', why: 'chunk text' },
  posting: { surface: 'chunks', holds: 'rows', why: 'words of chunks' },
  embedding_384: vectors,
  embedding_768: vectors,
  embedding_1024: vectors,
  embedding_1536: vectors,
  embedding_3072: vectors,
  file: { surface: 'files', holds: 'token', why: 'file name' },
  file_part: { surface: 'files', holds: 'token', why: 'file body' },
  vector_store: { surface: 'stores', holds: 'token', why: 'store name and metadata' },
  vector_store_file: { surface: 'attributes', holds: 'token', why: 'chunk attributes' },
  file_batch: { surface: 'batches', holds: 'rows', why: 'ids and a time' },
  file_batch_file: { surface: 'batches', holds: 'rows', why: 'numbers' },
  response: { surface: 'conversations', holds: 'token', why: 'conversation content and metadata', fullOnly: true },
  idempotency: { surface: 'idempotency', holds: 'empty', why: 'kept answers; checked by repeating a request' },
  document_quota: { surface: 'limits', holds: 'rows', why: 'counters' },
  usage_event: { surface: 'limits', holds: 'empty', why: 'counts and key ids: no text of a tenant reaches the ledger' },
  data_key: { surface: 'tables', holds: 'rows', why: 'wrapped data keys' },
  plain_rows: { surface: 'tables', holds: 'empty', why: 'whether values from before encryption are left' },
  residence: { surface: 'tables', holds: 'empty', why: 'where a moving tenant’s rows are' },
};

/** Background jobs: how a forged one of each kind is tried. */
export const jobCases: Readonly<Record<string, { readonly forge: boolean; readonly why: string }>> = {
  ingest_file: { forge: true, why: 'would read a file and write chunks' },
  expire_file: { forge: true, why: 'would delete a file' },
  expire_store: { forge: true, why: 'would empty a store' },
  reembed_store: { forge: true, why: 'would fill a space of a store, at its owner’s expense, and switch to it' },
  reseal: { forge: true, why: 'would seal what is stored anew' },
};

export function nameOf({ method, path }: Pick<AuditedRoute, 'method' | 'path'>): string {
  return `${method} ${path}`;
}

/** The parameters of a path, in order. */
export function parametersOf(path: string): readonly string[] {
  return [...path.matchAll(/:(\w+)/g)].map((match) => match[1] ?? '');
}

/** Undefined when the owner of these ids lacks one that the path needs. */
export function pathWith(path: string, ids: Readonly<Record<string, string | undefined>>): string | undefined {
  let isWhole = true;
  const filled = path.replaceAll(/:(\w+)/g, (_, name: string) => {
    const id = ids[name];
    if (id === undefined) isWhole = false;
    return encodeURIComponent(id ?? '');
  });
  return isWhole ? filled : undefined;
}
