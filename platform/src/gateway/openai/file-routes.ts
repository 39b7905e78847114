/** `/v1/files`: a tenant's uploads. */
import { BulkheadError } from '../../errors/bulkhead-error.ts';
import type { Answer, TenantExchange } from '../exchange.ts';
import { fileTooLarge } from '../multipart.ts';
import type { TenantRoute } from '../route.ts';
import { notFound, pageRequestOf } from '../validate.ts';
import { fileShape, listShape } from './shapes.ts';

const purposes = new Set(['assistants', 'batch', 'fine-tune', 'vision', 'user_data', 'evals']);
const expirySecondsMin = 3_600;
const expirySecondsMax = 2_592_000;

/** Read as a whole by whoever asked for them, never by a parser: they may be larger than a document. */
const bulkPurposes = new Set(['batch', 'fine-tune', 'evals']);

export interface FileRouteParts {
  readonly nowMs: () => number;
  /** Of a file that may become a document. */
  readonly documentBytesMax: number;
}

export function fileRoutes(parts: FileRouteParts): readonly TenantRoute[] {
  const route = (method: TenantRoute['method'], path: string, handle: TenantRoute['handle']): TenantRoute => ({
    auth: 'tenant',
    spends: false,
    method,
    path,
    body: method === 'POST' ? 'multipart' : 'none',
    handle,
  });
  return [
    route('POST', '/v1/files', (exchange) => upload(exchange, parts)),
    route('GET', '/v1/files', list),
    route('GET', '/v1/files/:fileId', retrieve),
    route('GET', '/v1/files/:fileId/content', content),
    route('DELETE', '/v1/files/:fileId', remove),
  ];
}

async function upload(exchange: TenantExchange, { nowMs, documentBytesMax }: FileRouteParts): Promise<Answer> {
  const file = exchange.upload?.file;
  const fields = exchange.upload?.fields ?? {};
  if (file === undefined) throw new BulkheadError('missing_required_parameter', 'a file part is required', { param: 'file' });
  const purpose = fields['purpose'];
  if (purpose === undefined) throw new BulkheadError('missing_required_parameter', 'purpose is required', { param: 'purpose' });
  if (!purposes.has(purpose)) {
    throw new BulkheadError('invalid_value', `purpose must be one of ${[...purposes].join(', ')}`, { param: 'purpose' });
  }
  if (file.body.bytes > documentBytesMax && !bulkPurposes.has(purpose)) throw fileTooLarge(documentBytesMax);
  if (file.body.bytes === 0) throw new BulkheadError('empty_file', 'the file has 0 bytes', { param: 'file' });
  const stored = await exchange.scope.files.create({
    filename: file.filename,
    purpose,
    body: file.body,
    expiresAtMs: expiryOf(fields, nowMs()),
  });
  return { kind: 'json', status: 200, body: fileShape(stored) };
}

function expiryOf(fields: Readonly<Record<string, string>>, nowMs: number): number | undefined {
  const text = fields['expires_after[seconds]'];
  if (text === undefined) return undefined;
  const seconds = Number(text);
  if (!Number.isInteger(seconds) || seconds < expirySecondsMin || seconds > expirySecondsMax) {
    throw new BulkheadError('invalid_value', `must be ${expirySecondsMin} to ${expirySecondsMax} seconds`, {
      param: 'expires_after.seconds',
    });
  }
  return nowMs + seconds * 1_000;
}

async function list(exchange: TenantExchange): Promise<Answer> {
  const page = pageRequestOf(exchange.query, { limitMax: 10_000, limitDefault: 10_000 });
  const files = await exchange.scope.files.list(page, exchange.query.get('purpose') ?? undefined);
  return { kind: 'json', status: 200, body: listShape(files, fileShape) };
}

async function retrieve(exchange: TenantExchange): Promise<Answer> {
  const file = await exchange.scope.files.get(fileIdOf(exchange));
  if (file === undefined) throw notFound('file', fileIdOf(exchange));
  return { kind: 'json', status: 200, body: fileShape(file) };
}

async function content(exchange: TenantExchange): Promise<Answer> {
  const file = await exchange.scope.files.read(fileIdOf(exchange));
  if (file === undefined) throw notFound('file', fileIdOf(exchange));
  // Never the uploader's content type: a browser must not be talked into running an upload.
  const headers = { 'content-disposition': 'attachment', 'x-content-type-options': 'nosniff' };
  return { kind: 'parts', status: 200, headers, contentType: 'application/octet-stream', ...file };
}

async function remove(exchange: TenantExchange): Promise<Answer> {
  const fileId = fileIdOf(exchange);
  if (!(await exchange.scope.files.delete(fileId))) throw notFound('file', fileId);
  return { kind: 'json', status: 200, body: { id: fileId, object: 'file', deleted: true } };
}

function fileIdOf(exchange: TenantExchange): string {
  return exchange.params['fileId'] ?? '';
}
