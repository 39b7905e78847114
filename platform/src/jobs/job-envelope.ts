/**
 * Who a background job works for, proved. The tenant's own request seals a job when it enqueues it; the worker opens the envelope and
 * mints the Principal from it. The queue's own columns are labels: a row that anyone edits or forges opens to nothing.
 */
import { createHmac, timingSafeEqual } from 'node:crypto';
import { parseTenantId } from '../primitives/ids.ts';
import type { JobFacts } from '../rag/job-queue.ts';
import { mintPrincipal } from '../tenancy/mint-principal.ts';
import type { Principal } from '../tenancy/principal.ts';
import type { ScopePolicy } from '../tenancy/tenant.ts';

export class JobEnvelopes {
  readonly #key: Uint8Array;

  /** `key`: 32 secret bytes, the same in every replica. */
  constructor(key: Uint8Array) {
    this.#key = key;
  }

  /** `<claims>.<HMAC-SHA-256>`, both base64url. Binds the tenant and user to exactly this job. */
  seal(principal: Principal, job: JobFacts): string {
    const claims: EnvelopeClaims = {
      version: 1,
      tenantId: principal.tenantId,
      user: principal.user,
      keyId: principal.keyId,
      ...(principal.tier !== undefined && { tier: principal.tier }),
      ...(principal.team !== undefined && { team: principal.team }),
      ...(principal.keyPolicy !== undefined && { keyPolicy: principal.keyPolicy }),
      job: jobText(job),
    };
    const body = Buffer.from(JSON.stringify(claims), 'utf8').toString('base64url');
    return `${body}.${this.#mac(body).toString('base64url')}`;
  }

  /** The identity the job was sealed for; undefined for an envelope that is absent, altered, of another key or of another job. */
  open(envelope: string, job: JobFacts): Principal | undefined {
    const [body = '', mac = '', ...rest] = envelope.split('.');
    const expected = this.#mac(body);
    const actual = Buffer.from(mac, 'base64url');
    if (rest.length > 0 || actual.length !== expected.length || !timingSafeEqual(actual, expected)) return undefined;
    const claims = JSON.parse(Buffer.from(body, 'base64url').toString('utf8')) as EnvelopeClaims;
    const tenantId = parseTenantId(claims.tenantId);
    if (claims.version !== 1 || tenantId === undefined || claims.job !== jobText(job)) return undefined;
    const { user, keyId, tier, team, keyPolicy } = claims;
    return mintPrincipal({ tenantId, kind: 'job', user, keyId, tier, team, keyPolicy });
  }

  #mac(body: string): Buffer {
    return createHmac('sha256', this.#key).update('bulkhead-job-envelope-1\n').update(body).digest();
  }
}

interface EnvelopeClaims {
  readonly version: 1;
  readonly tenantId: string;
  readonly user: string;
  readonly keyId: string;
  readonly tier?: string;
  readonly team?: string;
  /** As it was when the job was sealed: what is done behind a key's request spends what the key may. */
  readonly keyPolicy?: ScopePolicy;
  readonly job: string;
}

/** One text for one job, whatever the order of its keys. */
function jobText({ id, kind, payload }: JobFacts): string {
  const { storeId = null, fileId = null, ...rest }: Readonly<Record<string, string | number | null>> = { ...payload };
  return JSON.stringify([
    id,
    kind,
    storeId,
    fileId,
    ...Object.entries(rest)
      .toSorted(([left], [right]) => (left < right ? -1 : 1))
      .flat(),
  ]);
}
