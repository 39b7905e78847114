/**
 * The operator's two rotations. A new master key: every tenant's data keys are wrapped anew, counted again, and the old master key is let go only when
 * nothing is wrapped by it. A new data key of one tenant: made with the job that seals the tenant's content anew. Tenants are visited one after the other, each as
 * itself; what a process that dies leaves undone the next run does.
 */
import { type DataKeyCustody, type MasterKeyRegister, newDataKey, rewrapDataKey, wrapDataKey } from '../encryption/data-key.ts';
import type { MasterKeys } from '../encryption/master-key.ts';
import { BulkheadError } from '../errors/bulkhead-error.ts';
import { assert } from '../primitives/assert.ts';
import type { TenantId } from '../primitives/ids.ts';
import type { Logger } from '../telemetry/logger.ts';
import { mintPrincipal } from '../tenancy/mint-principal.ts';
import { OperatorScope } from '../tenancy/operator-scope.ts';
import type { Principal } from '../tenancy/principal.ts';
import type { TenantRegistry } from '../tenancy/tenant-directory.ts';

export interface KeyRotationParts {
  readonly masters: MasterKeys;
  readonly register: MasterKeyRegister;
  readonly registry: Pick<TenantRegistry, 'list'>;
  readonly custodyOf: (principal: Principal) => DataKeyCustody;
  readonly logger: Logger;
}

export interface RewrapReport {
  readonly isDryRun: boolean;
  readonly status: 'running' | 'completed' | 'failed';
  readonly tenants: number;
  /** Data keys by the master key that wrapped them when they were looked at. */
  readonly wrappedBy: Readonly<Record<string, number>>;
  readonly rewrapped: number;
  /** Data keys that could not be unwrapped; their master key stays. */
  readonly unreadable: number;
  /** Tenants with content from before there was encryption; a run that is not dry has it sealed. */
  readonly tenantsWithPlainRows: number;
  /** Master keys that wrap nothing any more and may leave the configuration. */
  readonly retired: readonly string[];
}

interface Run {
  isDryRun: boolean;
  status: RewrapReport['status'];
  tenants: number;
  wrappedBy: Record<string, number>;
  rewrapped: number;
  unreadable: number;
  tenantsWithPlainRows: number;
  retired: string[];
}

const tenantsAtOnce = 500;

export class KeyRotation implements AsyncDisposable {
  readonly #parts: KeyRotationParts;
  readonly #stop = new AbortController();
  #run: Run | undefined;
  #running: Promise<void> | undefined;

  constructor(parts: KeyRotationParts) {
    this.#parts = parts;
  }

  /** The last run of this process, or the one under way. */
  get report(): RewrapReport | undefined {
    return this.#run;
  }

  get currentMasterKeyId(): string {
    return this.#parts.masters.current.id;
  }

  masterKeyIds(operator: OperatorScope): Promise<readonly string[]> {
    assert(OperatorScope.is(operator), 'master keys are the operator’s');
    return this.#parts.register.ids();
  }

  /** Throws `not_ready` while another run is under way. */
  start(operator: OperatorScope, isDryRun: boolean): RewrapReport {
    assert(OperatorScope.is(operator), 'rotation is the operator’s');
    if (this.#running !== undefined) throw new BulkheadError('not_ready', 'Data keys are being wrapped anew already.');
    const run: Run = freshRun(isDryRun);
    this.#run = run;
    this.#running = this.#rewrapAll(operator, run).finally(() => {
      this.#running = undefined;
    });
    return run;
  }

  /** Resolves when the run that is under way has ended. */
  async settled(): Promise<void> {
    await this.#running;
  }

  /** A new data key for the tenant. The version that seals from now on. */
  async rotate(operator: OperatorScope, tenantId: TenantId): Promise<number> {
    assert(OperatorScope.is(operator), 'rotation is the operator’s');
    const custody = this.#parts.custodyOf(principalOf(tenantId));
    const version = Math.max(0, ...(await custody.list()).keys.map((key) => key.version)) + 1;
    const key = newDataKey();
    const { current } = this.#parts.masters;
    const wrapped = await wrapDataKey(current, key, { tenantId, version });
    key.fill(0);
    if (!(await custody.advance({ version, masterKeyId: current.id, wrapped, messages: 0 }))) {
      throw new BulkheadError('not_ready', 'The data key of this tenant is being changed by somebody else.');
    }
    return version;
  }

  /** The tenant's data keys: versions and the master keys that wrap them. */
  async dataKeys(
    operator: OperatorScope,
    tenantId: TenantId,
  ): Promise<readonly { readonly version: number; readonly masterKeyId: string }[]> {
    assert(OperatorScope.is(operator), 'data keys are the operator’s');
    const { keys } = await this.#parts.custodyOf(principalOf(tenantId)).list();
    return keys.map(({ version, masterKeyId }) => ({ version, masterKeyId }));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  async #rewrapAll(operator: OperatorScope, run: Run): Promise<void> {
    const { logger, masters } = this.#parts;
    try {
      for await (const tenantId of this.#tenants(operator)) await this.#visit(tenantId, run);
      if (!run.isDryRun && run.unreadable === 0) await this.#retireUnused(operator, run);
      run.status = 'completed';
      logger.info({ component: 'at-rest', count: run.rewrapped, reason: masters.current.id }, 'data keys were wrapped anew');
    } catch (error) {
      run.status = 'failed';
      const code = error instanceof BulkheadError ? error.code : 'internal_error';
      logger.error({ component: 'at-rest', code, count: run.rewrapped }, 'wrapping data keys anew ended early; the next run goes on');
    }
  }

  async *#tenants(operator: OperatorScope): AsyncGenerator<TenantId> {
    let after: string | undefined;
    for (;;) {
      const page = await this.#parts.registry.list(operator, { limit: tenantsAtOnce, after });
      for (const { id } of page.items) {
        this.#stop.signal.throwIfAborted();
        yield id;
      }
      after = page.items.at(-1)?.id;
      if (!page.hasMore) return;
    }
  }

  async #visit(tenantId: TenantId, run: Run): Promise<void> {
    const { masters, custodyOf } = this.#parts;
    const custody = custodyOf(principalOf(tenantId));
    const stored = await custody.list();
    run.tenants++;
    if (stored.hasPlainRows) {
      run.tenantsWithPlainRows++;
      if (!run.isDryRun) await custody.sealPlainRows();
    }
    for (const key of stored.keys) {
      run.wrappedBy[key.masterKeyId] = (run.wrappedBy[key.masterKeyId] ?? 0) + 1;
      if (key.masterKeyId === masters.current.id) continue;
      const by = await rewrapDataKey(masters, tenantId, key);
      if (by === undefined) run.unreadable++;
      else if (!run.isDryRun && (await custody.replace(key, by))) run.rewrapped++;
    }
  }

  /** Counted once more: a process that still wraps with an old master key may have made data keys meanwhile. */
  async #retireUnused(operator: OperatorScope, run: Run): Promise<void> {
    const { custodyOf, register, masters } = this.#parts;
    const used = new Set<string>([masters.current.id]);
    for await (const tenantId of this.#tenants(operator)) {
      for (const key of (await custodyOf(principalOf(tenantId)).list()).keys) used.add(key.masterKeyId);
    }
    for (const id of await register.ids()) {
      if (used.has(id)) continue;
      await register.retire(id);
      run.retired.push(id);
    }
  }
}

function freshRun(isDryRun: boolean): Run {
  return { isDryRun, status: 'running', tenants: 0, wrappedBy: {}, rewrapped: 0, unreadable: 0, tenantsWithPlainRows: 0, retired: [] };
}

function principalOf(tenantId: TenantId): Principal {
  return mintPrincipal({ tenantId, kind: 'job', user: 'key-rotation', keyId: 'job:key-rotation' });
}
