import { KeyRing, type KeyRingParts } from '../../src/encryption/key-ring.ts';
import { localMasterKey } from '../../src/encryption/local-master-key.ts';
import { masterKeys } from '../../src/encryption/master-key.ts';
import { systemClock } from '../../src/primitives/clock.ts';
import { silentLogger } from '../../src/telemetry/logger.ts';

/** The same master key in every process of a test. */
export function testKeyRing(parts: Partial<KeyRingParts> = {}): KeyRing {
  return new KeyRing({
    masters: masterKeys(localMasterKey(Buffer.alloc(32, 7))),
    clock: systemClock,
    logger: silentLogger,
    ttlMs: 300_000,
    entriesMax: 1_000,
    ...parts,
  });
}
