/**
 * Finds the one credential of a request, and refuses everything that tries to choose a tenant beside it. Header names arrive lower-case
 * from Node; `rawHeaders` is needed to see a header that was sent twice. `OpenAI-Organization` and `OpenAI-Project` are accepted, because
 * SDKs send them by themselves, and select nothing.
 */
import type { IncomingHttpHeaders } from 'node:http';
import { BulkheadError } from '../errors/bulkhead-error.ts';
import { parseApiKey } from './api-key.ts';

/** Headers by which other systems let a client name its tenant. Refused, not ignored: a client that sends one expects it to count. */
export const tenantHeaders: ReadonlySet<string> = new Set([
  'tenant',
  'tenant-id',
  'tenant_id',
  'x-tenant',
  'x-tenant-id',
  'x_tenant_id',
  'x-tenant-name',
  'x-bulkhead-tenant',
  'x-bulkhead-tenant-id',
  'x-org-id',
  'x-organization',
  'x-organization-id',
  'x-account-id',
  'x-customer-id',
  'x-workspace-id',
]);

/** Fields by which a query or body could try the same. */
export const tenantFields: ReadonlySet<string> = new Set([
  'tenant',
  'tenant_id',
  'tenantId',
  'tenantid',
  'tenant-id',
  'x-tenant-id',
  'bulkhead_tenant',
]);

const credentialParameters = new Set(['api_key', 'api-key', 'apikey', 'x-api-key', 'key', 'access_token', 'token', 'authorization']);

/** The bearer credential's text. Throws `missing_credentials` or `duplicate_credentials`. */
export function credentialOf(headers: IncomingHttpHeaders, rawHeaders: readonly string[]): string {
  let sent = 0;
  for (let index = 0; index < rawHeaders.length; index += 2) {
    if (isCredentialHeader(rawHeaders[index] ?? '')) sent++;
  }
  if (sent > 1) throw new BulkheadError('duplicate_credentials', 'Send one credential: one Authorization header, or one x-api-key header.');
  const { authorization } = headers;
  const credential = authorization === undefined ? (headers['x-api-key'] ?? headers['api-key']) : bearerOf(authorization);
  if (typeof credential !== 'string' || credential === '') {
    throw new BulkheadError('missing_credentials', 'No credential was sent. Send an API key or a JWT as Authorization: Bearer.');
  }
  return credential;
}

/** By length first: this is asked for every header of every request. */
function isCredentialHeader(name: string): boolean {
  switch (name.length) {
    case 13:
      return name.toLowerCase() === 'authorization';
    case 9:
      return name.toLowerCase() === 'x-api-key';
    case 7:
      return name.toLowerCase() === 'api-key';
    default:
      return false;
  }
}

/** Throws `tenant_not_selectable` when a header or query parameter names a tenant, `credentials_in_query` for a credential in the query. */
export function refuseTenantSelection(headers: IncomingHttpHeaders, query: URLSearchParams): void {
  for (const name in headers) {
    if (tenantHeaders.has(name)) throw notSelectable(name);
  }
  if (query.size === 0) return;
  for (const name of query.keys()) {
    if (tenantFields.has(name) || tenantFields.has(name.toLowerCase())) throw notSelectable(name);
  }
  const refusal = credentialInQuery(query);
  if (refusal !== undefined) throw refusal;
}

/** The refusal of a credential in the query, by the parameter's name or by the value's form; undefined when there is none. */
export function credentialInQuery(query: URLSearchParams): BulkheadError | undefined {
  for (const [name, value] of query) {
    if (!credentialParameters.has(name.toLowerCase()) && parseApiKey(value) === undefined && !tokenForm.test(value)) continue;
    return new BulkheadError(
      'credentials_in_query',
      'Credentials are not accepted in the query, where logs keep them. Send Authorization: Bearer, and replace this one.',
    );
  }
  return undefined;
}

/** A JWS: its header is a JSON object, which begins with `{"`. */
const tokenForm = /^eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*$/;
const bearerForm = /^bearer +(\S+)$/i;

/** The text after `Bearer`, in any case; undefined for another scheme. */
export function bearerOf(authorization: string): string | undefined {
  return bearerForm.exec(authorization)?.[1];
}

function notSelectable(name: string): BulkheadError {
  return new BulkheadError('tenant_not_selectable', 'The tenant comes from the credential and cannot be chosen by the request.', {
    param: name,
  });
}
