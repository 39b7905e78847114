/**
 * Which columns hold sealed content, and which hold text or bytes that are plain on purpose. A test compares both with the live catalogue: a column
 * that is in neither fails it (`test/at-rest/sealed-columns.test.ts`).
 */
import type { SealedColumn } from '../../encryption/sealed-record.ts';

export const sealed = {
  /** Not the shard: a store moves between shards with its values. */
  chunkContent: { table: 'chunk', column: 'content', rowKey: ['store_no', 'file_no', 'ordinal'] },
  filePartBody: { table: 'file_part', column: 'body', rowKey: ['file_id', 'part_no'] },
  response: { table: 'response', column: 'response', rowKey: ['id'] },
  responseInput: { table: 'response', column: 'input_items', rowKey: ['id'] },
  idempotencyBody: { table: 'idempotency', column: 'body', rowKey: ['route', 'key'], rowKeyIsTheClients: true },
} as const satisfies Record<string, SealedColumn>;

export const sealedColumns: readonly SealedColumn[] = Object.values(sealed);

const identifier = 'an identifier that the product made';
const state = 'one of a few fixed words';
const setting = 'a setting, from the configuration or from a fixed set';
const vector = 'compared by the database; much of a text can be guessed from its vector (guides/encryption-at-rest.md)';
const label = 'listed, filtered or shown by the database; the guide says to keep secrets out of it';

/** `table.column` -> why it is plain. */
export const plainColumns: Readonly<Record<string, string>> = {
  'data_key.master_key_id': identifier,
  'data_key.reseal_cursor': 'row keys',
  'data_key.wrapped': 'encrypted by the master key',
  'file.id': identifier,
  'file.filename': label,
  'file.purpose': state,
  'file.sha256': 'tells whether a file that somebody has is this one',
  'file_batch.id': identifier,
  'file_batch_file.batch_id': identifier,
  'file_part.file_id': identifier,
  'idempotency.route': setting,
  'idempotency.key': 'looked up by its value; kept 24 hours',
  'idempotency.body_sha256': 'compared by its value; kept 24 hours',
  'posting.lexeme': 'the words of full-text search, without their order (guides/encryption-at-rest.md)',
  'residence.state': state,
  'residence.token': identifier,
  'response.id': identifier,
  'response.previous_response_id': identifier,
  'usage_event.id': identifier,
  'usage_event.key_id': identifier,
  'usage_event.user_id': 'the bill; who called, never what was said',
  'usage_event.request_id': identifier,
  'usage_event.endpoint': state,
  'usage_event.model': setting,
  'usage_event.upstream_model': setting,
  'usage_event.provider': setting,
  'usage_event.service_tier': state,
  'usage_event.outcome': state,
  'usage_event.usage': 'the bill: counts by name',
  'usage_event.cost_lines': 'the bill: amounts by name',
  'usage_event.price_version': setting,
  'vector_store.id': identifier,
  'vector_store.name': label,
  'vector_store.description': label,
  'vector_store.metadata': label,
  'vector_store.embedding_model': setting,
  'vector_store.building_fault': state,
  'vector_store.building_model': setting,
  'vector_store.language': setting,
  'vector_store_file.file_id': identifier,
  'vector_store_file.status': state,
  'vector_store_file.draft': identifier,
  'vector_store_file.draft_digest': 'tells whether a text is the one that is being indexed; gone when it is',
  'vector_store_file.error_code': state,
  'vector_store_file.error_message': 'a fixed text with numbers; never a document',
  'vector_store_file.attributes': label,
  'vector_store_file.chunking_type': state,
  'embedding_384.embedding': vector,
  'embedding_768.embedding': vector,
  'embedding_1024.embedding': vector,
  'embedding_1536.embedding': vector,
  'embedding_3072.embedding': vector,
};
