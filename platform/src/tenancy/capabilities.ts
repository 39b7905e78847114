/**
 * What a TenantScope can do with its tenant's data, in the words of its consumers. No method takes a tenant; every
 * identifier is looked up together with the bound tenant, so another tenant's id behaves exactly as an absent one.
 * Shapes follow OpenAI's API reference; times are whole seconds since the epoch only at the HTTP edge, milliseconds here.
 */

import type { AttributeFilter, Attributes } from './attributes.ts';
import type { UsageQuery, UsageRow } from './usage.ts';

export interface TenantCapabilities {
  readonly files: FileCabinet;
  readonly vectorStores: VectorStoreCabinet;
  readonly responses: ResponseCabinet;
  readonly usage: UsageReader;
  readonly idempotency: IdempotencyCabinet;
}

/** A page of a list, newest first unless `order` is `asc`. `after`/`before` are ids of this same list. */
export interface PageRequest {
  /** 1 to 100 (files: 1 to 10,000). */
  readonly limit: number;
  readonly order: 'asc' | 'desc';
  readonly after?: string | undefined;
  readonly before?: string | undefined;
}

export interface Page<Item> {
  readonly items: readonly Item[];
  readonly hasMore: boolean;
}

// ---------------------------------------------------------------- files

export interface StoredFile {
  readonly id: string;
  readonly filename: string;
  readonly purpose: string;
  readonly bytes: number;
  /** Lower-case hexadecimal SHA-256 of the body. */
  readonly sha256: string;
  readonly createdAtMs: number;
  readonly expiresAtMs?: number | undefined;
}

/** A body that may be larger than memory should hold: an upload on disk. */
export interface FileBody {
  readonly bytes: number;
  /** Lower-case hexadecimal SHA-256. */
  readonly sha256: string;
  /** In order, each of `partBytes` but the last. */
  parts(partBytes: number): AsyncIterable<Uint8Array>;
}

export interface NewFile {
  readonly filename: string;
  readonly purpose: string;
  /** Bytes only where they are in memory anyway. */
  readonly body: FileBody | Uint8Array;
  readonly expiresAtMs?: number | undefined;
}

export interface FileContent {
  readonly bytes: number;
  /** In order, at most 1 MiB each, read as they are asked for. Throws `not_found` when the file is deleted meanwhile. */
  readonly parts: AsyncIterable<Uint8Array>;
}

export interface FileCabinet {
  /** The file is there whole or not at all. Throws `quota_exceeded` beyond the tenant's file limits. */
  create(file: NewFile): Promise<StoredFile>;
  get(fileId: string): Promise<StoredFile | undefined>;
  read(fileId: string): Promise<FileContent | undefined>;
  list(page: PageRequest, purpose?: string): Promise<Page<StoredFile>>;
  /** False when there was nothing to delete. Removes the file from every vector store in the same transaction. */
  delete(fileId: string): Promise<boolean>;
  /** Deletes a file whose time is up. Milliseconds until then when it is not; undefined when there is nothing to wait for. */
  expire(fileId: string): Promise<number | undefined>;
}

// ---------------------------------------------------------------- vector stores

export interface ChunkingStrategy {
  readonly type: 'auto' | 'static';
  /** 100 to 4096, 800 for `auto`. */
  readonly maxChunkTokens: number;
  /** At most half of `maxChunkTokens`, 400 for `auto`. */
  readonly overlapTokens: number;
}

export type IngestionStatus = 'in_progress' | 'completed' | 'failed' | 'cancelled';

export interface VectorStoreRecord {
  readonly id: string;
  readonly name: string;
  readonly description?: string | undefined;
  readonly metadata: Readonly<Record<string, string>>;
  readonly createdAtMs: number;
  readonly lastActiveAtMs: number;
  readonly expiresAfterDays?: number | undefined;
  /** For good: an expired store is emptied, answers no search and takes no file. */
  readonly isExpired: boolean;
  readonly usageBytes: number;
  readonly fileCounts: Readonly<Record<IngestionStatus | 'total', number>>;
  readonly embeddingModel: string;
  readonly embeddingDimensions: number;
}

export interface VectorStoreFileRecord {
  /** The file's id; a store holds a file once. */
  readonly id: string;
  readonly vectorStoreId: string;
  readonly filename: string;
  readonly status: IngestionStatus;
  readonly lastError?: { readonly code: 'server_error' | 'unsupported_file' | 'invalid_file'; readonly message: string } | undefined;
  readonly usageBytes: number;
  readonly attributes: Attributes;
  readonly chunking: ChunkingStrategy;
  readonly createdAtMs: number;
}

export interface FileBatchRecord {
  readonly id: string;
  readonly vectorStoreId: string;
  readonly status: IngestionStatus;
  readonly fileCounts: Readonly<Record<IngestionStatus | 'total', number>>;
  readonly createdAtMs: number;
}

export interface NewVectorStore {
  readonly name: string;
  readonly description?: string | undefined;
  readonly metadata: Readonly<Record<string, string>>;
  readonly expiresAfterDays?: number | undefined;
}

/** Changes to a store; an absent field stays, `null` clears. */
export interface VectorStoreChanges {
  readonly name?: string | undefined;
  readonly metadata?: Readonly<Record<string, string>> | undefined;
  readonly expiresAfterDays?: number | null | undefined;
}

export interface AttachedFile {
  readonly fileId: string;
  readonly attributes: Attributes;
  readonly chunking: ChunkingStrategy;
}

export interface HybridQuery {
  readonly text: string;
  /** `[dimension]`, by `embeddingModel`. */
  readonly embedding: Float32Array;
  /** What the question was embedded by. */
  readonly embeddingModel: string;
  readonly filter?: AttributeFilter | undefined;
  /** 1 to 50. */
  readonly limit: number;
  readonly weights: { readonly dense: number; readonly lexical: number };
  /** Ends the waits of the search. */
  readonly signal?: AbortSignal | undefined;
}

/** A chunk of this tenant's text with where it came from. `ownerId` is read from the row and checked again before use. */
export interface RetrievedChunk {
  readonly ownerId: string;
  readonly vectorStoreId: string;
  readonly chunkId: string;
  readonly fileId: string;
  readonly filename: string;
  readonly attributes: Attributes;
  /** Position of the chunk in its file, from 0. */
  readonly ordinal: number;
  readonly text: string;
  /** Fused relevance in (0, 1], comparable only within one answer. */
  readonly score: number;
}

export interface VectorStoreCabinet {
  create(store: NewVectorStore): Promise<VectorStoreRecord>;
  get(storeId: string): Promise<VectorStoreRecord | undefined>;
  update(storeId: string, changes: VectorStoreChanges): Promise<VectorStoreRecord | undefined>;
  list(page: PageRequest): Promise<Page<VectorStoreRecord>>;
  delete(storeId: string): Promise<boolean>;
  /** Empties a store whose time is up. Milliseconds until then when it is not; undefined when there is nothing to wait for. */
  expire(storeId: string): Promise<number | undefined>;

  /** Throws `vector_store_expired`, as `createBatch` and `search` do. Attaches a file and enqueues its ingestion in the same transaction. Attaching a file twice returns the first. Undefined: no such store or file. */
  attachFile(storeId: string, file: AttachedFile): Promise<VectorStoreFileRecord | undefined>;
  getFile(storeId: string, fileId: string): Promise<VectorStoreFileRecord | undefined>;
  listFiles(
    storeId: string,
    page: PageRequest,
    filter: { readonly status?: IngestionStatus | undefined; readonly batchId?: string | undefined },
  ): Promise<Page<VectorStoreFileRecord> | undefined>;
  updateFileAttributes(storeId: string, fileId: string, attributes: Attributes): Promise<VectorStoreFileRecord | undefined>;
  detachFile(storeId: string, fileId: string): Promise<boolean>;
  /** The indexed text of a file in reading order; undefined when absent. */
  fileContent(storeId: string, fileId: string): Promise<readonly string[] | undefined>;

  createBatch(storeId: string, files: readonly AttachedFile[]): Promise<FileBatchRecord | undefined>;
  getBatch(storeId: string, batchId: string): Promise<FileBatchRecord | undefined>;
  cancelBatch(storeId: string, batchId: string): Promise<FileBatchRecord | undefined>;

  /** What each of these stores is searched by; absent stores are left out. */
  embeddingModels(storeIds: readonly string[]): Promise<ReadonlyMap<string, string>>;
  /**
   * Exact hybrid search: always `min(limit, matching chunks)` results, best first, ties by chunk id. Undefined: no such store. Throws
   * `embedding_model_changed`, whose details name the model, when the store is embedded by another than the question.
   */
  search(storeId: string, query: HybridQuery): Promise<readonly RetrievedChunk[] | undefined>;
}

// ---------------------------------------------------------------- responses

export interface StoredResponse {
  readonly id: string;
  readonly createdAtMs: number;
  readonly previousResponseId?: string | undefined;
  /** The response object as it was answered. */
  readonly response: Readonly<Record<string, unknown>>;
  /** The input items as they were understood, each with an id. */
  readonly inputItems: readonly Readonly<Record<string, unknown>>[];
}

export interface ResponseCabinet {
  create(response: StoredResponse): Promise<void>;
  get(responseId: string): Promise<StoredResponse | undefined>;
  /** The chain from the first response to `responseId`, at most 200 long; undefined when any link is absent. */
  chain(responseId: string): Promise<readonly StoredResponse[] | undefined>;
  delete(responseId: string): Promise<boolean>;
}

// ---------------------------------------------------------------- usage, idempotency

export interface UsageReader {
  query(query: UsageQuery): Promise<readonly UsageRow[]>;
}

export interface IdempotencyCabinet {
  /** Claims `key` for a body hash, or returns what an earlier claim recorded. Kept 24 h. */
  claim(route: string, key: string, bodySha256: string): Promise<IdempotencyClaim>;
  complete(route: string, key: string, answer: { readonly status: number; readonly body: string }): Promise<void>;
  release(route: string, key: string): Promise<void>;
}

export type IdempotencyClaim =
  | { readonly kind: 'claimed' }
  | { readonly kind: 'mismatch' }
  | { readonly kind: 'running' }
  | { readonly kind: 'done'; readonly status: number; readonly body: string };
