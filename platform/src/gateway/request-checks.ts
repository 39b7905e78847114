/**
 * What a request may look like before anything is read of it. Node's parser has refused broken framing already; this is what the
 * parser lets through and two parsers could read differently (route confusion: field-lessons 4.3).
 */
import type { IncomingMessage } from 'node:http';
import { BulkheadError } from '../errors/bulkhead-error.ts';

export interface HeaderRules {
  readonly headersMax: number;
  /** Lower-case `host` or `host:port`; undefined takes any. */
  readonly allowedHosts: ReadonlySet<string> | undefined;
}

/** Throws `malformed_request`, `headers_too_large`, `misdirected_request` or `expectation_failed`. */
export function checkHeaders(request: IncomingMessage, rules: HeaderRules): void {
  const { headers, rawHeaders } = request;
  if (rawHeaders.length > 2 * rules.headersMax) {
    throw new BulkheadError('headers_too_large', `a request may have ${rules.headersMax} headers; this one has ${rawHeaders.length / 2}`);
  }
  checkDuplicates(headers, rawHeaders);
  checkHost(request, rules.allowedHosts);
  if (headers.expect !== undefined && headers.expect.toLowerCase() !== '100-continue') {
    throw new BulkheadError('expectation_failed', 'the only expectation that can be met is 100-continue');
  }
  const codings = headers['transfer-encoding'];
  if (codings !== undefined && codings.toLowerCase() !== 'chunked') {
    throw new BulkheadError('malformed_request', 'the only transfer coding is chunked');
  }
}

/** Headers of which a second one would be ignored by us and maybe believed by the next. `authorization` is the authentication's own. */
const singletons = new Set([
  'host',
  'content-type',
  'content-length',
  'content-encoding',
  'transfer-encoding',
  'expect',
  'idempotency-key',
  'x-session-id',
]);

function checkDuplicates(headers: IncomingMessage['headers'], rawHeaders: readonly string[]): void {
  let distinct = 0;
  for (const _ in headers) distinct++;
  if (distinct * 2 === rawHeaders.length) return;
  const seen = new Set<string>();
  for (let index = 0; index < rawHeaders.length; index += 2) {
    const name = (rawHeaders[index] ?? '').toLowerCase();
    if (!singletons.has(name)) continue;
    if (seen.has(name)) throw new BulkheadError('malformed_request', `the header ${name} was sent twice`);
    seen.add(name);
  }
}

function checkHost(request: IncomingMessage, allowedHosts: ReadonlySet<string> | undefined): void {
  const { host } = request.headers;
  if (host === undefined || host === '') {
    if (request.httpVersion === '1.0' && allowedHosts === undefined) return;
    throw new BulkheadError('malformed_request', 'the Host header is missing');
  }
  if (allowedHosts !== undefined && !allowedHosts.has(host.toLowerCase())) {
    throw new BulkheadError('misdirected_request', 'this server does not answer for that host');
  }
}

/**
 * Throws `malformed_request` for a request target that is not a plain path: absolute form, `*`, empty or dot segments, a backslash,
 * a fragment, and percent-encodings of dots, controls or bytes that are not UTF-8. Returns the path without its query.
 */
export function checkTarget(target: string): string {
  const path = pathOf(target);
  // The shape of nearly every path; backtracks nowhere, because a segment cannot begin with what ends it.
  if (!plainPath.test(path)) checkUnusualPath(path);
  if (target.includes('#', path.length)) throw badTarget('it has a fragment');
  return path;
}

const plainPath = /^(?:\/[A-Za-z0-9_-][A-Za-z0-9._-]*)+$/;

function checkUnusualPath(target: string): void {
  if (!target.startsWith('/')) throw badTarget('it must be a path');
  const end = target.length;
  let before = '';
  let isEncoded = false;
  for (let index = 0; index < end; index++) {
    const character = target.charAt(index);
    if (character === '%') isEncoded = true;
    else if (character <= ' ' || character > '~' || character === '\\' || character === '#')
      throw badTarget('it has a character that must be encoded');
    else if (character === '/' && before === '/') throw badTarget('it has an empty segment');
    else if (character === '.' && before === '/' && isDotSegment(target, index, end)) throw badTarget('it has a dot segment');
    before = character;
  }
  if (isEncoded) checkEncoding(target);
}

function pathOf(target: string): string {
  const mark = target.indexOf('?');
  return mark === -1 ? target : target.slice(0, mark);
}

/** `.` or `..` alone between slashes, `index` being the first dot. */
function isDotSegment(target: string, index: number, end: number): boolean {
  const next = target.charAt(index + 1) === '.' ? index + 2 : index + 1;
  return next >= end || target.charAt(next) === '/';
}

/** Encoded forms of `.`, `\`, `%` and the controls have no place in any id of ours. A slash has one in ids that others chose: `refuseEncodedSlash`. */
const forbiddenEncoding = /%(?:[01][0-9a-f]|2e|5c|25|7f)/i;
const encodedSlash = /%2f/i;

/** Throws `malformed_request`. For every path whose route does not declare `slashInParams`. */
export function refuseEncodedSlash(path: string): void {
  if (encodedSlash.test(path)) throw badTarget('it encodes a slash');
}

function checkEncoding(path: string): void {
  if (forbiddenEncoding.test(path)) throw badTarget('it encodes a dot, a percent sign or a control character');
  try {
    decodeURIComponent(path);
  } catch (error) {
    if (error instanceof URIError) throw badTarget('its percent-encoding is not UTF-8');
    throw error;
  }
}

function badTarget(reason: string): BulkheadError {
  return new BulkheadError('malformed_request', `the path is not accepted: ${reason}`);
}
