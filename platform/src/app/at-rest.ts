/** The master keys that the configuration names, and the ring that keeps the tenants' data keys under them. */
import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PostgresDataKeyCustody } from '../adapters/postgres/data-key-custody.ts';
import type { Database } from '../adapters/postgres/database.ts';
import { PostgresMasterKeyRegister } from '../adapters/postgres/master-keys.ts';
import type { TenantHomes } from '../adapters/postgres/tenant-homes.ts';
import { type VaultMasterKeyOptions, vaultMasterKey } from '../adapters/vault-transit/vault-master-key.ts';
import type { Config, MasterKeyConfig } from '../config/schema.ts';
import { KeyRing } from '../encryption/key-ring.ts';
import { localMasterKey } from '../encryption/local-master-key.ts';
import { type MasterKey, masterKeys } from '../encryption/master-key.ts';
import { BulkheadError } from '../errors/bulkhead-error.ts';
import { JobEnvelopes } from '../jobs/job-envelope.ts';
import { KeyRotation } from '../jobs/key-rotation.ts';
import type { Clock } from '../primitives/clock.ts';
import type { IdSource } from '../primitives/ids.ts';
import type { SealJob } from '../rag/job-queue.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { TenantRegistry } from '../tenancy/tenant-directory.ts';
import type { Secrets } from './secrets.ts';

export interface AtRestParts {
  readonly config: Config;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: Metrics;
}

export interface KeyRotationWiring {
  readonly keyRing: KeyRing;
  readonly database: Database;
  readonly homes: TenantHomes;
  readonly directory: TenantRegistry;
  readonly secrets: Secrets;
  readonly ids: IdSource;
  readonly clock: Clock;
  readonly logger: Logger;
}

const keyBytes = 32;

/** Throws `master_key_refused` when a key cannot be read or is none. */
export function openKeyRing({ config, clock, logger, metrics }: AtRestParts): KeyRing {
  const { atRest, bounds, dataDir } = config;
  const service = { timeoutMs: bounds.keyServiceTimeoutMs, retriesMax: bounds.keyServiceRetriesMax, logger };
  const isNamed = atRest.keyFile !== undefined || atRest.key !== undefined || atRest.vault !== undefined;
  const current = isNamed ? masterKeyOf(atRest, service) : localMasterKey(keptKey(dataDir));
  return new KeyRing({
    masters: masterKeys(
      current,
      atRest.previous.map((key) => masterKeyOf(key, service)),
    ),
    clock,
    logger,
    ttlMs: bounds.dataKeyCacheMs,
    entriesMax: bounds.dataKeyCacheEntriesMax,
    onAlarm: ({ tenantId, column }) => metrics.observeIsolationAlarm(tenantId, column),
  });
}

export function openKeyRotation({ keyRing, database, homes, directory, secrets, ids, clock, logger }: KeyRotationWiring): KeyRotation {
  const envelopes = new JobEnvelopes(secrets.jobEnvelope);
  const sealJob: SealJob = (principal, job) => envelopes.seal(principal, job);
  return new KeyRotation({
    masters: keyRing.masters,
    register: new PostgresMasterKeyRegister(database),
    registry: directory,
    custodyOf: (principal) => new PostgresDataKeyCustody({ database: homes.forTenant(principal), principal, ids, clock, sealJob }),
    logger,
  });
}

type KeyService = Pick<VaultMasterKeyOptions, 'timeoutMs' | 'retriesMax' | 'logger'>;

function masterKeyOf({ keyFile, key = '', vault }: MasterKeyConfig, service: KeyService): MasterKey {
  if (vault !== undefined) return vaultMasterKey({ ...vault, ...service });
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
