/** The master keys that the configuration names, and the ring that keeps the tenants' data keys under them. */
import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Config, MasterKeyConfig } from '../config/schema.ts';
import { KeyRing } from '../encryption/key-ring.ts';
import { localMasterKey } from '../encryption/local-master-key.ts';
import { type MasterKey, masterKeys } from '../encryption/master-key.ts';
import { BulkheadError } from '../errors/bulkhead-error.ts';
import type { Clock } from '../primitives/clock.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { Metrics } from '../telemetry/metrics.ts';

export interface AtRestParts {
  readonly config: Config;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: Metrics;
}

const keyBytes = 32;

/** Throws `master_key_refused` when a key cannot be read or is none. */
export function openKeyRing({ config, clock, logger, metrics }: AtRestParts): KeyRing {
  const { atRest, bounds, dataDir } = config;
  const isNamed = atRest.keyFile !== undefined || atRest.key !== undefined;
  const current = isNamed ? masterKeyOf(atRest) : localMasterKey(keptKey(dataDir));
  return new KeyRing({
    masters: masterKeys(current, atRest.previous.map(masterKeyOf)),
    clock,
    logger,
    ttlMs: bounds.dataKeyCacheMs,
    entriesMax: bounds.dataKeyCacheEntriesMax,
    onAlarm: ({ tenantId, column }) => metrics.observeIsolationAlarm(tenantId, column),
  });
}

function masterKeyOf({ keyFile, key = '' }: MasterKeyConfig): MasterKey {
  if (keyFile === undefined) return localMasterKey(decoded(key, 'atRest.key'));
  return localMasterKey(decoded(readKeyFile(keyFile), keyFile));
}

function readKeyFile(file: string): string {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch (cause) {
    const reason = (cause as NodeJS.ErrnoException).code ?? 'unknown error';
    throw new BulkheadError('master_key_refused', `The master key file ${file} cannot be read (${reason}).`);
  }
}

/** 32 bytes as hexadecimal, base64 or base64url. */
function decoded(text: string, source: string): Buffer {
  const bytes = /^[0-9a-f]{64}$/i.test(text) ? Buffer.from(text, 'hex') : Buffer.from(text, 'base64');
  if (bytes.length === keyBytes) return bytes;
  throw new BulkheadError(
    'master_key_refused',
    `The master key in ${source} must be 32 bytes as base64 or hexadecimal, not ${bytes.length}. Make one: openssl rand -base64 32`,
  );
}

/** Beside the data, so it protects a copy of the database alone and no copy of the directory. */
function keptKey(dataDir: string): Buffer {
  const file = join(dataDir, 'at-rest.key');
  mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  try {
    // `wx` so that two processes starting together agree on one key.
    writeFileSync(file, `${randomBytes(keyBytes).toString('base64')}\n`, { mode: 0o600, flag: 'wx' });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
  return decoded(readKeyFile(file), file);
}
