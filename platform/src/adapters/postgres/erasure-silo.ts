/** The database of a siloed tenant, as a surface of its erasure. */
import type { Principal } from '../../tenancy/principal.ts';
import { TenantDatabase } from './database.ts';
import { countRowsOf } from './erasure-surfaces.ts';
import type { OpenSilos } from './open-silos.ts';
import type { SiloRegister } from './silo-register.ts';
import { SiloGone, type SiloSource } from './silo-source.ts';
import { removeAll } from './tenant-copy.ts';
import { tenantTables } from './tenant-tables.ts';

export interface SiloSurfaceParts {
  readonly source: SiloSource;
  readonly silos: OpenSilos;
  readonly register: SiloRegister;
}

export class SiloSurface {
  readonly #parts: SiloSurfaceParts;

  constructor(parts: SiloSurfaceParts) {
    this.#parts = parts;
  }

  /** Rows of each of its tables; nothing when the tenant has no database of its own, or has none any more. */
  async counts(tenant: Principal): Promise<Readonly<Record<string, number>>> {
    const { register, silos } = this.#parts;
    const record = await register.find(tenant.tenantId);
    if (record === undefined) return {};
    try {
      return await silos.use(record.place, async (silo) => {
        const database = new TenantDatabase(silo, tenant);
        const counts: Record<string, number> = { 'silo database': 1 };
        for (const { name } of await tenantTables(silo)) {
          counts[`silo app.${name}`] = await database.read((db) => countRowsOf(db, `app.${name}`, tenant.tenantId));
        }
        return counts;
      });
    } catch (error) {
      if (error instanceof SiloGone) return {};
      throw error;
    }
  }

  async isHome({ tenantId }: Principal): Promise<boolean> {
    return (await this.#parts.register.find(tenantId))?.state === 'home';
  }

  /** So that its files hold what was written last. */
  async writeOut({ tenantId }: Principal): Promise<void> {
    const { register, silos } = this.#parts;
    const record = await register.find(tenantId);
    // A server's files are not ours to search, and its checkpoints its own.
    if (record?.state !== 'home' || !record.place.startsWith('silos/')) return;
    await silos.use(record.place, (silo) => silo.withClient((client) => client.query('CHECKPOINT')));
  }

  /** With every byte in it; one that its operator gave is emptied. May be repeated. */
  async destroy(tenant: Principal): Promise<void> {
    const { register, silos, source } = this.#parts;
    const { tenantId } = tenant;
    const record = await register.find(tenantId);
    if (record === undefined) return;
    await silos.retire(record.place);
    await source.destroy(record.place, async (silo) => removeAll(new TenantDatabase(silo, tenant), await tenantTables(silo)));
    await register.remove(tenantId);
  }
}
