/** Ports: what the audit needs of the system it attacks. `app/` wires them to the running process; the audit itself knows no HTTP server and no database. */
import type { TenantId } from '../primitives/ids.ts';
import type { TableTruth, Tripwire } from '../tenancy/audit-records.ts';
import type { TenantIsolation } from '../tenancy/tenant.ts';
import type { CatalogueFinding } from './catalogue-lint.ts';

export interface AuditRequest {
  readonly method: string;
  /** With its query. */
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Sent as JSON, or as it is when it is bytes. */
  readonly body?: unknown;
  /** Hang up after this many characters of the answer. */
  readonly leaveAfter?: number;
}

export interface AuditAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
  /** From the first byte sent to the last one read, monotonic. */
  readonly durationMs: number;
}

/** Sends requests through the real edge: sockets, parser, authentication, routing. Rejects when the connection breaks. */
export interface AuditTarget {
  send(request: AuditRequest, signal: AbortSignal): Promise<AuditAnswer>;
}

/** A route as its table declares it. */
export interface AuditedRoute {
  readonly method: string;
  readonly path: string;
  readonly auth: 'tenant' | 'operator' | 'none';
  readonly body: string;
  readonly spends: boolean;
}

/** Everything that can hold or hand out tenant data, read from where it is declared. */
export interface SurfaceRegistry {
  readonly routes: readonly AuditedRoute[];
  readonly jobKinds: readonly string[];
  /** Tables of tenant data in the live catalogue. */
  tables(): Promise<readonly string[]>;
}

/** The second observer: looks at rows from inside, as each tenant. */
export interface TruthReader {
  scan(tenantId: TenantId): Promise<readonly TableTruth[]>;
  tripwires(attacker: TenantId, victim: TenantId): Promise<readonly Tripwire[]>;
  lint(): Promise<readonly CatalogueFinding[]>;
  /** SHA-256 of the catalogue's description of tenant tables. */
  schemaHash(): Promise<string>;
}

export type ForgedEnvelope = 'names the victim, unsigned' | 'sealed by the attacker';

/** Puts a job that names a victim's file into the queue, as an attacker who can write there, and waits for what becomes of it. */
export interface JobForger {
  forge(attacker: TenantId, victim: TenantId, job: ForgedJob): Promise<'buried' | 'done' | 'waiting'>;
}

export interface ForgedJob {
  readonly kind: string;
  readonly envelope: ForgedEnvelope;
  readonly storeId: string;
  readonly fileId: string;
  readonly signal: AbortSignal;
}

/** An identity provider of one canary tenant alone, whose private key the audit may use to forge with. */
export interface CanaryIssuer {
  readonly issuer: string;
  readonly audience: string;
  readonly kid: string;
  readonly publicKeyPem: string;
  /** Signs whatever it is given; header and claims are the forger's. */
  sign(header: Readonly<Record<string, unknown>>, claims: string): string;
}

export interface IssuedKey {
  readonly key: string;
  readonly keyId: string;
}

/** The tenants that are attacked and what they may call with. */
export interface AuditGround {
  /** Makes the canary tenants that are missing. Throws when a tenant of that name is not the audit's. */
  enrol(count: number): Promise<readonly EnrolledTenant[]>;
  /** A tenant that somebody uses, chosen by its operator. Throws when there is none or it is not active. */
  admit(tenantId: string): Promise<EnrolledTenant>;
  issueKey(tenantId: TenantId, requestsPerMinute?: number): Promise<IssuedKey>;
  revokeKey(tenantId: TenantId, keyId: string): Promise<void>;
  /** Every token of the subject issued so far is refused from now on. */
  revokeSubject(tenantId: TenantId, subject: string): Promise<void>;
  readonly operatorCredential: string;
}

export interface EnrolledTenant {
  readonly tenantId: TenantId;
  readonly kind: 'canary' | 'by consent';
  readonly isolation: TenantIsolation;
  /** Shown in the tenant's limit headers. */
  readonly requestsPerMinute: number | undefined;
  /** Canary tenants alone have one. */
  readonly issuer: CanaryIssuer | undefined;
}
