import type { TenantId } from '../../primitives/ids.ts';
import type { Database } from './database.ts';
import { type GivenSilos, isGiven } from './given-silos.ts';
import type { OpenSilo, SiloSource } from './silo-source.ts';

/** Each place by the source it came from: given for those tenants whose operator named a URL, made for all others. */
export class SiloSources implements SiloSource {
  readonly #made: SiloSource;
  readonly #given: GivenSilos;

  constructor(made: SiloSource, given: GivenSilos) {
    this.#made = made;
    this.#given = given;
  }

  async placeFor(tenantId: TenantId): Promise<string> {
    return (await this.#given.has(tenantId)) ? this.#given.placeFor(tenantId) : this.#made.placeFor(tenantId);
  }

  prepare(): Promise<void> {
    return this.#made.prepare();
  }

  create(place: string): Promise<void> {
    return this.#of(place).create(place);
  }

  open(place: string): Promise<OpenSilo> {
    return this.#of(place).open(place);
  }

  destroy(place: string, empty: (database: Database) => Promise<void>): Promise<void> {
    return this.#of(place).destroy(place, empty);
  }

  #of(place: string): SiloSource {
    return isGiven(place) ? this.#given : this.#made;
  }
}
