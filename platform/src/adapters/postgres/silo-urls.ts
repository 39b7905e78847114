/** URLs of the databases that operators gave for tenants: from the configuration, or from the admin API and then kept encrypted. */
import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';
import { sql } from 'kysely';
import type { TenantId } from '../../primitives/ids.ts';
import type { Database } from './database.ts';

/** Never logged, never returned: they hold passwords. */
export interface GivenUrl {
  /** The login that serves. */
  readonly url: string;
  /** The login that owns the schema; undefined: the operator keeps the schema up to date. */
  readonly ownerUrl?: string | undefined;
}

export interface GivenUrls {
  find(tenantId: TenantId): Promise<GivenUrl | undefined>;
}

export interface SiloUrlParts {
  readonly database: Database;
  /** Of the configuration; they win. */
  readonly configured: ReadonlyMap<string, GivenUrl>;
  readonly key: Buffer;
}

export class SiloUrls implements GivenUrls {
  readonly #parts: SiloUrlParts;

  constructor(parts: SiloUrlParts) {
    this.#parts = parts;
  }

  async find(tenantId: TenantId): Promise<GivenUrl | undefined> {
    const { database, configured, key } = this.#parts;
    const written = configured.get(tenantId);
    if (written !== undefined) return written;
    const { rows } = await database
      .forDirectory()
      .read((db) => sql<{ readonly sealed: Buffer }>`SELECT sealed FROM control.silo_url WHERE tenant_id = ${tenantId}`.execute(db));
    return rows[0] && openUrl(key, tenantId, rows[0].sealed);
  }

  /** Remembers it, or forgets what was remembered. */
  async keep(tenantId: TenantId, given: GivenUrl | undefined): Promise<void> {
    const { database, key } = this.#parts;
    const sealed = given && sealUrl(key, tenantId, given);
    await database.forDirectory().write((db) =>
      sealed === undefined
        ? sql`DELETE FROM control.silo_url WHERE tenant_id = ${tenantId}`.execute(db)
        : sql`
              INSERT INTO control.silo_url (tenant_id, sealed) VALUES (${tenantId}, ${sealed})
              ON CONFLICT (tenant_id) DO UPDATE SET sealed = excluded.sealed`.execute(db),
    );
  }
}

const nonceBytes = 12;
const tagBytes = 16;

/** AES-256-GCM (NIST SP 800-38D); nonce, ciphertext, tag. Bound to the tenant: under another's row it does not open. */
function sealUrl(key: Buffer, tenantId: TenantId, given: GivenUrl): Buffer {
  const nonce = randomBytes(nonceBytes);
  const cipher = createCipheriv('aes-256-gcm', key, nonce).setAAD(associatedWith(tenantId));
  return Buffer.concat([nonce, cipher.update(JSON.stringify(given), 'utf8'), cipher.final(), cipher.getAuthTag()]);
}

/** Throws when it was sealed for another tenant, or under another secret. */
export function openUrl(key: Buffer, tenantId: string, sealed: Buffer): GivenUrl {
  const end = sealed.byteLength - tagBytes;
  const decipher = createDecipheriv('aes-256-gcm', key, sealed.subarray(0, nonceBytes)).setAAD(associatedWith(tenantId));
  decipher.setAuthTag(sealed.subarray(end));
  const text = Buffer.concat([decipher.update(sealed.subarray(nonceBytes, end)), decipher.final()]).toString('utf8');
  return JSON.parse(text) as GivenUrl;
}

function associatedWith(tenantId: string): Buffer {
  return Buffer.from(`control.silo_url\n${tenantId}`, 'utf8');
}
