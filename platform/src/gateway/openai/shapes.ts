/** Our records in OpenAI's JSON shapes (api.md 1.1). Times become whole seconds here and nowhere else. */
import type {
  FileBatchRecord,
  IngestionStatus,
  Page,
  RetrievedChunk,
  StoredFile,
  VectorStoreFileRecord,
  VectorStoreRecord,
} from '../../tenancy/capabilities.ts';

export function fileShape(file: StoredFile) {
  return {
    id: file.id,
    object: 'file',
    bytes: file.bytes,
    created_at: seconds(file.createdAtMs),
    ...(file.expiresAtMs !== undefined && { expires_at: seconds(file.expiresAtMs) }),
    filename: file.filename,
    purpose: file.purpose,
    status: 'processed',
  };
}

export function vectorStoreShape(store: VectorStoreRecord) {
  const expiresAfter = store.expiresAfterDays;
  return {
    id: store.id,
    object: 'vector_store',
    created_at: seconds(store.createdAtMs),
    name: store.name,
    ...(store.description !== undefined && { description: store.description }),
    usage_bytes: store.usageBytes,
    file_counts: countsShape(store.fileCounts),
    status: store.isExpired ? 'expired' : store.fileCounts.in_progress > 0 ? 'in_progress' : 'completed',
    ...(expiresAfter !== undefined && {
      expires_after: { anchor: 'last_active_at', days: expiresAfter },
      expires_at: seconds(store.lastActiveAtMs) + expiresAfter * 86_400,
    }),
    last_active_at: seconds(store.lastActiveAtMs),
    metadata: store.metadata,
  };
}

export function vectorStoreFileShape(file: VectorStoreFileRecord) {
  return {
    id: file.id,
    object: 'vector_store.file',
    usage_bytes: file.usageBytes,
    created_at: seconds(file.createdAtMs),
    vector_store_id: file.vectorStoreId,
    status: file.status,
    last_error: file.lastError ?? null,
    chunking_strategy: {
      type: 'static',
      static: { max_chunk_size_tokens: file.chunking.maxChunkTokens, chunk_overlap_tokens: file.chunking.overlapTokens },
    },
    attributes: file.attributes,
  };
}

export function fileBatchShape(batch: FileBatchRecord) {
  return {
    id: batch.id,
    object: 'vector_store.files_batch',
    created_at: seconds(batch.createdAtMs),
    vector_store_id: batch.vectorStoreId,
    status: batch.status,
    file_counts: countsShape(batch.fileCounts),
  };
}

export function searchResultShape(chunk: RetrievedChunk) {
  return {
    file_id: chunk.fileId,
    filename: chunk.filename,
    score: chunk.score,
    attributes: chunk.attributes,
    content: [{ type: 'text', text: chunk.text }],
  };
}

/** A cursor list: `has_more` is never true on an empty page, because the SDK would ask again for ever. */
export function listShape<Item, Shape extends { readonly id: string }>(page: Page<Item>, shape: (item: Item) => Shape) {
  const data = page.items.map(shape);
  return {
    object: 'list',
    data,
    first_id: data[0]?.id ?? null,
    last_id: data.at(-1)?.id ?? null,
    has_more: page.hasMore && data.length > 0,
  };
}

function countsShape(counts: Readonly<Record<IngestionStatus | 'total', number>>) {
  return {
    in_progress: counts.in_progress,
    completed: counts.completed,
    failed: counts.failed,
    cancelled: counts.cancelled,
    total: counts.total,
  };
}

function seconds(timeMs: number): number {
  return Math.floor(timeMs / 1_000);
}
