/** What Node's HTTP parser refuses, and its timeouts, as errors of ours. */
import { BulkheadError } from '../errors/bulkhead-error.ts';

/** Undefined when the connection is gone and nothing can be answered. The parser's text names the rule, never the input. */
export function transportError(error: NodeJS.ErrnoException): BulkheadError | undefined {
  switch (error.code) {
    case 'ECONNRESET':
    case 'EPIPE':
    case 'ETIMEDOUT':
      return undefined;
    case 'HPE_HEADER_OVERFLOW':
      return new BulkheadError('headers_too_large', 'the request line and headers are over the limit');
    case 'HPE_CHUNK_EXTENSIONS_OVERFLOW':
      return new BulkheadError('body_too_large', 'the chunk extensions are over the limit');
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return new BulkheadError('request_timeout', 'the request did not arrive in time');
    default:
      return new BulkheadError('malformed_request', 'the request is not valid HTTP/1.1');
  }
}
