/** How many databases of single tenants are open, and for how long. */
import { setTimeout as wait } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import type { Database } from '../../src/adapters/postgres/database.ts';
import { type OpenSiloBounds, OpenSilos } from '../../src/adapters/postgres/open-silos.ts';
import { SiloGone, type SiloSource } from '../../src/adapters/postgres/silo-source.ts';
import { systemClock } from '../../src/primitives/clock.ts';
import { silentLogger } from '../../src/telemetry/logger.ts';
import { openSiloWorld } from './silo-world.ts';

class CountingSource implements SiloSource {
  open_ = 0;
  most = 0;
  opened = 0;
  failures = 0;
  placeFor = async (tenantId: string) => tenantId;
  prepare = async () => {};
  create = async () => {};
  destroy = async () => {};

  async open(place: string) {
    await wait(2);
    if (this.failures > 0) {
      this.failures--;
      throw new Error('not now');
    }
    this.opened++;
    this.most = Math.max(this.most, ++this.open_);
    return {
      database: { place } as unknown as Database,
      [Symbol.asyncDispose]: async () => {
        await wait(2);
        this.open_--;
      },
    };
  }
}

function openSilos(source: SiloSource, bounds: Partial<OpenSiloBounds> = {}): OpenSilos {
  return new OpenSilos(source, {
    bounds: { openMax: 2, idleMs: 60_000, roomWaitMaxMs: 5_000, ...bounds },
    clock: systemClock,
    logger: silentLogger,
  });
}

const placeOf = async (database: Database) => (database as unknown as { readonly place: string }).place;

describe('open silos', () => {
  it('are opened once for all who use them, and never more than the bound at once', async () => {
    const source = new CountingSource();
    await using silos = openSilos(source);
    const places = Array.from({ length: 60 }, (_, index) => `s${index % 5}`);
    const used = await Promise.all(
      places.map((place) =>
        silos.use(place, async (database) => {
          await wait(3);
          return placeOf(database);
        }),
      ),
    );
    expect(used).toEqual(places);
    expect(source.most).toBe(2);
  });

  it('refuse when every one is in use for too long', async () => {
    await using silos = openSilos(new CountingSource(), { openMax: 1, roomWaitMaxMs: 60 });
    let leave = () => {};
    const held = silos.use('a', () => new Promise<void>((resolve) => (leave = resolve)));
    await expect(silos.use('b', placeOf)).rejects.toMatchObject({ code: 'capacity_unavailable' });
    leave();
    await held;
    expect(await silos.use('b', placeOf)).toBe('b');
  });

  it('close when nobody has used them for a while', async () => {
    const source = new CountingSource();
    await using silos = openSilos(source, { idleMs: 40 });
    await silos.use('a', placeOf);
    expect(source.open_).toBe(1);
    while (source.open_ > 0) await wait(5);
    expect(silos.size).toBe(0);
  });

  it('can be looked at while they are open, which neither opens one nor keeps one open', async () => {
    const source = new CountingSource();
    await using silos = openSilos(source, { idleMs: 60 });
    const seen: string[] = [];
    const look = () =>
      silos.visit(async (database, place) => {
        expect(await placeOf(database)).toBe(place);
        seen.push(place);
      });
    await look();
    await Promise.all(['a', 'b'].map((place) => silos.use(place, placeOf)));
    await look();
    expect(seen.toSorted()).toEqual(['a', 'b']);
    while (source.open_ > 0) {
      await wait(5);
      await look();
    }
    expect(source.opened).toBe(2);
    await expect(silos.visit(() => Promise.reject(new Error('none is left')))).resolves.toBeUndefined();
  });

  it('are tried again after one could not be opened', async () => {
    const source = new CountingSource();
    source.failures = 1;
    await using silos = openSilos(source);
    await expect(silos.use('a', placeOf)).rejects.toThrow('not now');
    expect(await silos.use('a', placeOf)).toBe('a');
  });

  it('let nobody in once retired, until they were made anew', async () => {
    const source = new CountingSource();
    await using silos = openSilos(source);
    await silos.use('a', placeOf);
    await silos.retire('a');
    expect(source.open_).toBe(0);
    await expect(silos.use('a', placeOf)).rejects.toBeInstanceOf(SiloGone);
    silos.admit('a');
    expect(await silos.use('a', placeOf)).toBe('a');
  });

  it('are never made by being opened: an empty ghost would take a tenant’s writes', async () => {
    await using world = await openSiloWorld();
    await expect(world.source.open('silos/nobody')).rejects.toBeInstanceOf(SiloGone);
  });
});
