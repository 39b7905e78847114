/**
 * Revocation of tokens by epoch: the directory keeps, for a subject or for a whole tenant, the moment before which every token is refused.
 * No list of tokens, so nothing grows with what was issued.
 */
import { BulkheadError } from '../errors/bulkhead-error.ts';
import type { TenantDirectory } from '../tenancy/tenant-directory.ts';
import type { VerifiedToken } from './verify-jwt.ts';

/** Throws `token_revoked`. An operator may have named the subject or, where the issuer's user claim is another one, the user. */
export async function refuseRevoked(directory: TenantDirectory, token: VerifiedToken): Promise<void> {
  const { tenantId, subject, user, issuedAtMs } = token;
  const names = user === subject ? [subject] : [subject, user];
  const epochs = await Promise.all(names.map((name) => directory.subjectNotBeforeMs(tenantId, name)));
  // `iat` has whole seconds: a token of the same second as the revocation counts as older.
  const isRevoked = epochs.some((notBeforeMs) => notBeforeMs !== undefined && issuedAtMs <= notBeforeMs);
  if (isRevoked) throw new BulkheadError('token_revoked', 'The token was revoked.');
}
