/**
 * One request from its head to its answer, in order: what it may look like, who sends it, what it carries, the handler, the answer.
 * The route that is authorised is the route that was dispatched; a path is never looked at twice. Nothing of the body is read before
 * the sender is known.
 */
import type { IncomingHttpHeaders } from 'node:http';
import type { CredentialCarrier } from '../auth/authenticate.ts';
import { credentialOf, tenantFields } from '../auth/credentials.ts';
import { BulkheadError } from '../errors/bulkhead-error.ts';
import type { TenantScope } from '../tenancy/tenant-scope.ts';
import type { UploadSpool } from '../tenancy/upload-spool.ts';
import type { BodyBudget } from './body-budget.ts';
import type { Answer, JsonObject } from './exchange.ts';
import { answerOnce, idempotencyKeyOf } from './idempotency.ts';
import type { OpenExchange } from './open-exchange.ts';
import { isUnexpected } from './openai-error.ts';
import { announcesBody, readBody } from './read-body.ts';
import { readUpload } from './read-upload.ts';
import { checkHeaders, checkTarget, type HeaderRules, refuseEncodedSlash } from './request-checks.ts';
import type { Route } from './route.ts';
import type { Router } from './router.ts';
import { type SendParts, sendAnswer, sendError } from './send-answer.ts';
import { parseStrictJson } from './strict-json.ts';

/** Who may call. Implemented by `auth/`. */
export interface EdgeAuthentication {
  /** The scope of the tenant that the credential proves. Throws or rejects with 400, 401 or 403, also for a request that names a tenant. */
  tenant(carrier: CredentialCarrier): TenantScope | Promise<TenantScope>;
  operator(headers: IncomingHttpHeaders): boolean;
}

export interface ServeParts extends SendParts {
  readonly authenticate: EdgeAuthentication;
  readonly headerRules: HeaderRules;
  readonly router: Router;
  readonly spool: UploadSpool;
  /** Uploads on disk. */
  readonly spooled: BodyBudget;
  readonly onRefusal?: ((tenantId: string, code: string) => void) | undefined;
}

/** Never rejects: every failure becomes an answer or, when nothing can be answered, the end of the connection. */
export async function serveExchange(parts: ServeParts, exchange: OpenExchange): Promise<void> {
  try {
    const answer = await answerOf(parts, exchange);
    const streaming = sendAnswer(parts, exchange, answer);
    if (streaming !== undefined) await streaming;
  } catch (error) {
    refuse(parts, exchange, error);
  } finally {
    const tenantId = exchange.openedScope?.tenantId;
    if (exchange.bodyBytes > 0) parts.bodies.give(tenantId, exchange.bodyBytes);
    await exchange.release();
    if (exchange.spooledBytes > 0) parts.spooled.give(tenantId, exchange.spooledBytes);
  }
}

async function answerOf(parts: ServeParts, exchange: OpenExchange): Promise<Answer> {
  const route = dispatch(parts, exchange);
  switch (route.auth) {
    case 'none':
      await readCarried(parts, exchange);
      return route.handle(exchange);
    case 'operator':
      authoriseOperator(parts, exchange);
      await readCarried(parts, exchange);
      return route.handle(exchange);
    case 'tenant': {
      const scope = parts.authenticate.tenant(exchange);
      exchange.openScope(scope instanceof Promise ? await scope : scope);
      const body = await readCarried(parts, exchange);
      refuseTenantFields(exchange.body);
      const key = idempotencyKeyOf(exchange);
      if (key === undefined) return route.handle(exchange);
      return answerOnce({ logger: parts.logger, bytesMax: parts.bounds.idempotentAnswerBytesMax }, { exchange, route, key, body }, () =>
        route.handle(exchange),
      );
    }
    default:
      return route satisfies never;
  }
}

function dispatch(parts: ServeParts, exchange: OpenExchange): Route {
  const { request } = exchange;
  const path = checkTarget(request.url ?? '');
  checkHeaders(request, parts.headerRules);
  if (parts.isDraining()) throw new BulkheadError('shutting_down', 'the server is shutting down', { retryAfterMs: 1_000 });
  const match = parts.router.match(request.method ?? '', path);
  if (match?.route.slashInParams !== true) refuseEncodedSlash(path);
  if (match !== undefined) return exchange.dispatch(match);
  const methods = parts.router.methodsOf(path);
  if (methods.length === 0) throw new BulkheadError('route_not_found', 'there is nothing at this path');
  exchange.response.setHeader('allow', methods.join(', '));
  throw new BulkheadError('method_not_allowed', `this path takes ${methods.join(', ')}`);
}

function authoriseOperator(parts: ServeParts, exchange: OpenExchange): void {
  credentialOf(exchange.headers, exchange.rawHeaders);
  if (!parts.authenticate.operator(exchange.headers)) throw new BulkheadError('invalid_api_key', 'The admin token is not valid.');
}

/** Reads and parses the body that the route declares into the exchange; returns its bytes, where they are in memory. */
function readCarried(parts: ServeParts, exchange: OpenExchange): Promise<Buffer | undefined> | undefined {
  const kind = exchange.route?.body ?? 'none';
  const coding = exchange.headers['content-encoding'];
  if (coding !== undefined && coding.toLowerCase() !== 'identity') {
    throw new BulkheadError('unsupported_encoding', 'compressed bodies are not accepted; send it without Content-Encoding');
  }
  if (kind === 'none') {
    if (announcesBody(exchange)) throw new BulkheadError('body_not_allowed', 'this route takes no body');
    return undefined;
  }
  if (!announcesBody(exchange)) return readNothing(kind);
  return kind === 'multipart' ? readMultipart(parts, exchange) : readJson(parts, exchange, kind);
}

function readNothing(kind: 'json' | 'optional-json' | 'multipart'): undefined {
  if (kind === 'optional-json') return undefined;
  throw new BulkheadError(
    'empty_body',
    kind === 'json' ? 'a JSON object is required as the body' : 'a multipart/form-data body is required',
  );
}

function readJson(parts: ServeParts, exchange: OpenExchange, kind: 'json' | 'optional-json'): Promise<Buffer> {
  if (!isJson(exchange.headers['content-type'])) {
    throw new BulkheadError('unsupported_media_type', 'the content type must be application/json in UTF-8');
  }
  const { bodyBytesMax: bytesMax, requestTimeoutMs: timeoutMs } = parts.bounds;
  return readBody(exchange, { bytesMax, budget: parts.bodies, timeoutMs }, (body) => {
    if (body.length > 0 || kind === 'json') exchange.body = parseStrictJson(body);
    return body;
  });
}

async function readMultipart(parts: ServeParts, exchange: OpenExchange): Promise<undefined> {
  const { bodies, spooled, spool, bounds } = parts;
  exchange.upload = await readUpload(exchange, { fileBytesMax: bounds.uploadBytesMax, bodies, spooled, spool });
  for (const name in exchange.upload.fields) refuseTenantField(name.replace(/^metadata\[(.*)\]$/, '$1'), name);
}

const jsonType = /^application\/json\s*(?:;\s*charset\s*=\s*"?utf-8"?\s*)?$/i;

function isJson(contentType: string | undefined): boolean {
  return contentType === 'application/json' || (contentType !== undefined && contentType.length <= 256 && jsonType.test(contentType));
}

/** The tenant comes from the credential; a field that names one is refused, not ignored, so that nobody believes it counts. */
function refuseTenantFields(body: JsonObject): void {
  for (const name in body) refuseTenantField(name, name);
  const { metadata } = body;
  if (typeof metadata !== 'object' || metadata === null || Array.isArray(metadata)) return;
  for (const name in metadata) refuseTenantField(name, `metadata.${name}`);
}

function refuseTenantField(name: string, param: string): void {
  if (name.length > 32 || !tenantFields.has(name)) return;
  throw new BulkheadError('reserved_parameter', 'The tenant comes from the credential and cannot be chosen by the request.', { param });
}

function refuse(parts: ServeParts, exchange: OpenExchange, error: unknown): void {
  const { requestId, route, endedBy } = exchange;
  // Cut from outside: the answer was given there, and what the handler throws now is only the echo.
  if (endedBy !== undefined) {
    if (!exchange.response.writableEnded) sendError(parts, exchange, endedBy);
    return;
  }
  if (isUnexpected(error)) parts.logger.error({ requestId, route: route?.path, stack: framesOf(error) }, 'a request failed unexpectedly');
  const answer = sendError(parts, exchange, error);
  const { openedScope } = exchange;
  if (openedScope !== undefined) parts.onRefusal?.(openedScope.tenantId, answer.code);
}

/** Where it happened, without the message: messages of databases and parsers quote what they were given. */
function framesOf(error: unknown): string {
  if (!(error instanceof Error)) return typeof error;
  const frames = (error.stack ?? '').split('\n').filter((line) => /^\s+at /.test(line));
  const shown = error.name === 'AssertionError' ? `${error.name}: ${error.message}` : error.name;
  return [shown, ...frames].join('\n');
}
