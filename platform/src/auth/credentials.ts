/**
 * Finds the one credential of a request, and refuses everything that tries to choose a tenant beside it. Header names arrive lower-case
 * from Node; `rawHeaders` is needed to see a header that was sent twice.
 */
import type { IncomingHttpHeaders } from 'node:http';
import { BulkheadError } from '../errors/bulkhead-error.ts';
import { parseApiKey } from './api-key.ts';

/** Headers by which other systems let a client name its tenant. Refused, not ignored: a client that sends one expects it to count. */
export const tenantHeaders: ReadonlySet<string> = new Set([
  'x-tenant-id',
  'x-tenant',
  'tenant-id',
  'tenant',
  'x-tenant-name',
  'x-bulkhead-tenant',
  'x-bulkhead-tenant-id',
  'x-org-id',
  'x-organization-id',
  'x-account-id',
  'x-workspace-id',
]);

/** Fields by which a query or body could try the same. */
export const tenantFields: ReadonlySet<string> = new Set([
  'tenant',
  'tenant_id',
  'tenantId',
  'tenant-id',
  'x-tenant-id',
  'bulkhead_tenant',
]);

const credentialHeaders = ['authorization', 'x-api-key', 'api-key'];
const credentialParameters = new Set(['api_key', 'api-key', 'apikey', 'key', 'access_token', 'token', 'authorization']);

/** The bearer credential's text. Throws `missing_credentials` or `duplicate_credentials`. */
export function credentialOf(headers: IncomingHttpHeaders, rawHeaders: readonly string[]): string {
  let sent = 0;
  for (let index = 0; index < rawHeaders.length; index += 2) {
    if (credentialHeaders.includes((rawHeaders[index] ?? '').toLowerCase())) sent++;
  }
  if (sent > 1) throw new BulkheadError('duplicate_credentials', 'Send one credential: one Authorization header, or one x-api-key header.');
  const { authorization } = headers;
  const credential = authorization === undefined ? (headers['x-api-key'] ?? headers['api-key']) : bearerOf(authorization);
  if (typeof credential !== 'string' || credential === '') {
    throw new BulkheadError('missing_credentials', 'No credential was sent. Send an API key or a JWT as Authorization: Bearer.');
  }
  return credential;
}

/** Throws `tenant_not_selectable` when a header or query parameter names a tenant, `credentials_in_query` for a credential in the query. */
export function refuseTenantSelection(headers: IncomingHttpHeaders, query: URLSearchParams): void {
  for (const name in headers) {
    if (tenantHeaders.has(name)) throw notSelectable(name);
  }
  for (const [name, value] of query) {
    if (tenantFields.has(name)) throw notSelectable(name);
    if (credentialParameters.has(name.toLowerCase()) || parseApiKey(value) !== undefined) {
      throw new BulkheadError(
        'credentials_in_query',
        'Credentials are not accepted in the query, where logs keep them. Send Authorization: Bearer, and replace this one.',
      );
    }
  }
}

function bearerOf(authorization: string): string | undefined {
  const match = /^bearer +(\S+)$/i.exec(authorization);
  return match?.[1];
}

function notSelectable(name: string): BulkheadError {
  return new BulkheadError('tenant_not_selectable', 'The tenant comes from the credential and cannot be chosen by the request.', {
    param: name,
  });
}
