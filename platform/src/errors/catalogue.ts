/**
 * Every expected failure, in one table: code -> HTTP status, OpenAI error type, and what a robot should do next.
 * The official SDKs retry 408, 409, 429 and 5xx by themselves unless `x-should-retry: false`, so this table is a
 * protocol with a robot (openai-node `core`, `shouldRetry`). No 409 on the data plane.
 */
export interface ErrorRule {
  readonly status: number;
  readonly type: ErrorType;
  /** What `x-should-retry` says; undefined leaves the SDK's own rule in force. */
  readonly shouldRetry?: boolean;
  /** The connection cannot be used again after this answer. */
  readonly closesConnection?: boolean;
}

export type ErrorType =
  | 'invalid_request_error'
  | 'authentication_error'
  | 'permission_error'
  | 'rate_limit_error'
  | 'insufficient_quota'
  | 'server_error'
  | 'overloaded_error'
  | 'upstream_error';

const invalid = (status: number): ErrorRule => ({ status, type: 'invalid_request_error', shouldRetry: false });
const unauthenticated: ErrorRule = { status: 401, type: 'authentication_error', shouldRetry: false };

export const errorCatalogue = {
  // Edge: transport and framing
  malformed_request: { ...invalid(400), closesConnection: true },
  headers_too_large: { ...invalid(431), closesConnection: true },
  request_timeout: { ...invalid(408), closesConnection: true },
  method_not_allowed: invalid(405),
  route_not_found: invalid(404),
  unsupported_media_type: invalid(415),
  unsupported_encoding: invalid(415),
  body_too_large: invalid(413),
  misdirected_request: invalid(421),
  body_not_allowed: invalid(400),
  expectation_failed: { ...invalid(417), closesConnection: true },
  duration_exceeded: { status: 504, type: 'server_error', shouldRetry: false },
  // Edge: JSON and schema
  empty_body: invalid(400),
  invalid_json: invalid(400),
  invalid_encoding: invalid(400),
  invalid_string: invalid(400),
  invalid_value: invalid(400),
  missing_required_parameter: invalid(400),
  unknown_parameter: invalid(400),
  reserved_parameter: invalid(400),
  unsupported_parameter: invalid(400),
  tenant_not_selectable: invalid(400),
  invalid_multipart: invalid(400),
  invalid_archive: invalid(400),
  invalid_cursor: invalid(400),
  invalid_filter: invalid(400),
  idempotency_mismatch: invalid(422),
  // Too Early (RFC 8470): the first request with this key still runs. Not 409: SDKs would retry that even when told not to.
  idempotency_in_progress: { status: 425, type: 'invalid_request_error', shouldRetry: true },
  idempotency_answer_not_kept: invalid(422),
  context_length_exceeded: invalid(400),
  // Identity
  missing_credentials: unauthenticated,
  duplicate_credentials: invalid(400),
  credentials_in_query: invalid(400),
  invalid_api_key: unauthenticated,
  invalid_token: unauthenticated,
  token_expired: unauthenticated,
  token_revoked: unauthenticated,
  tenant_suspended: { status: 403, type: 'permission_error', shouldRetry: false },
  permission_denied: { status: 403, type: 'permission_error', shouldRetry: false },
  // Things that are not there (another tenant's thing is one of them)
  not_found: invalid(404),
  model_not_found: invalid(404),
  already_exists: invalid(422),
  not_ready: invalid(400),
  erasure_incomplete: { status: 500, type: 'server_error', shouldRetry: false },
  vector_store_expired: invalid(400),
  quota_exceeded: invalid(403),
  // Admission and queue
  rate_limit_exceeded: { status: 429, type: 'rate_limit_error', shouldRetry: true },
  concurrency_limit_exceeded: { status: 429, type: 'rate_limit_error', shouldRetry: true },
  request_too_large_for_limit: invalid(413),
  budget_exceeded: { status: 429, type: 'insufficient_quota', shouldRetry: false },
  // What is left of a budget is set aside for requests that run: it may come back.
  session_limit_exceeded: { status: 429, type: 'rate_limit_error', shouldRetry: false },
  agent_loop_detected: { status: 429, type: 'rate_limit_error', shouldRetry: false },
  budget_reserved: { status: 429, type: 'rate_limit_error', shouldRetry: true },
  queue_full: { status: 429, type: 'rate_limit_error', shouldRetry: true },
  queue_timeout: { status: 429, type: 'rate_limit_error', shouldRetry: true },
  capacity_unavailable: { status: 503, type: 'overloaded_error', shouldRetry: true },
  shutting_down: { status: 503, type: 'overloaded_error', shouldRetry: true },
  // Upstream
  upstream_error: { status: 502, type: 'upstream_error' },
  upstream_timeout: { status: 504, type: 'upstream_error' },
  upstream_rejected: { status: 400, type: 'invalid_request_error', shouldRetry: false },
  upstream_rate_limited: { status: 429, type: 'rate_limit_error', shouldRetry: true },
  upstream_misconfigured: { status: 502, type: 'upstream_error', shouldRetry: false },
  // Documents
  unsupported_file_type: invalid(400),
  empty_file: invalid(400),
  file_type_mismatch: invalid(400),
  parse_failed: invalid(400),
  archive_limit: invalid(400),
  encrypted_document: invalid(400),
  document_limit: invalid(400),
  embedding_failed: { status: 502, type: 'upstream_error' },
  embedding_model_changed: { status: 503, type: 'server_error', shouldRetry: true },
  // Ours
  metering_unavailable: { status: 503, type: 'server_error', shouldRetry: true },
  // At rest
  sealed_data_unreadable: { status: 500, type: 'server_error', shouldRetry: false },
  key_unavailable: { status: 503, type: 'server_error', shouldRetry: true },
  master_key_refused: { status: 503, type: 'server_error', shouldRetry: false },
  database_unavailable: { status: 503, type: 'server_error', shouldRetry: true },
  data_directory_locked: { status: 503, type: 'server_error', shouldRetry: false },
  schema_mismatch: { status: 503, type: 'server_error', shouldRetry: false },
  unsafe_login: { status: 503, type: 'server_error', shouldRetry: false },
  unsafe_catalogue: { status: 503, type: 'server_error', shouldRetry: false },
  client_closed_request: { status: 499, type: 'invalid_request_error', shouldRetry: false },
  internal_error: { status: 500, type: 'server_error' },
} as const satisfies Record<string, ErrorRule>;

export type ErrorCode = keyof typeof errorCatalogue;

export function errorRule(code: ErrorCode): ErrorRule {
  return errorCatalogue[code];
}
