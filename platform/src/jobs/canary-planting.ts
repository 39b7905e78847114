/** Puts canaries into a tenant through the same doors as its own content, so that they are sealed, indexed and embedded as everything is. */
import { randomUUID } from 'node:crypto';
import type { CanaryTokens } from '../audit/canary-token.ts';
import { BulkheadError } from '../errors/bulkhead-error.ts';
import { assert } from '../primitives/assert.ts';
import type { IdSource } from '../primitives/ids.ts';
import type { IngestionShelf } from '../rag/ingest.ts';
import type { TenantCapabilities } from '../tenancy/capabilities.ts';
import type { Principal } from '../tenancy/principal.ts';
import type { CanaryPlanter, PlantedCanaries } from '../tenancy/tenant-erasure.ts';

export interface CanaryPlantingParts {
  readonly tokens: CanaryTokens;
  readonly capabilitiesOf: (tenant: Principal) => TenantCapabilities;
  readonly shelfOf: (tenant: Principal) => IngestionShelf;
  readonly ids: IdSource;
  readonly nowMs: () => number;
}

export class CanaryPlanting implements CanaryPlanter {
  readonly #parts: CanaryPlantingParts;

  constructor(parts: CanaryPlantingParts) {
    this.#parts = parts;
  }

  async plant(tenant: Principal): Promise<PlantedCanaries> {
    const token = () => this.#parts.tokens.make(tenant.tenantId);
    const tokens = { file: token(), store: token(), chunk: token(), response: token(), answer: token() };
    const capabilities = this.#parts.capabilitiesOf(tenant);
    const documents = await this.#plantDocuments(tenant, capabilities, tokens);
    const responseId = await this.#plantResponse(capabilities, tokens.response);
    const key = `canary-${randomUUID()}`;
    await capabilities.idempotency.claim('POST /v1/canary', key, '0'.repeat(64));
    await capabilities.idempotency.complete('POST /v1/canary', key, { status: 200, body: JSON.stringify({ canary: tokens.answer }) });
    return { tokens: Object.values(tokens), ids: [...documents, responseId, key] };
  }

  async #plantDocuments(
    tenant: Principal,
    { files, vectorStores }: TenantCapabilities,
    tokens: Record<'file' | 'store' | 'chunk', string>,
  ): Promise<readonly string[]> {
    const body = Buffer.from(`This file belongs to ${tokens.file}, who keeps it.`);
    const newFile = { filename: `${tokens.file}.txt`, purpose: 'assistants', body };
    const file = await makingRoom(
      () => files.create(newFile),
      async () => {
        const [oldest] = (await files.list({ limit: 1, order: 'asc' })).items;
        return oldest !== undefined && (await files.delete(oldest.id));
      },
    );
    const store = await makingRoom(
      () => vectorStores.create({ name: tokens.store, metadata: { canary: tokens.store } }),
      async () => {
        const [oldest] = (await vectorStores.list({ limit: 1, order: 'asc' })).items;
        return oldest !== undefined && (await vectorStores.delete(oldest.id));
      },
    );
    const chunking = { type: 'static', maxChunkTokens: 100, overlapTokens: 0 } as const;
    await vectorStores.attachFile(store.id, { fileId: file.id, attributes: { canary: tokens.chunk }, chunking });
    const draft = await this.#parts.shelfOf(tenant).begin({ storeId: store.id, fileId: file.id });
    assert(draft !== undefined, 'nobody else ingests for a tenant that is being erased');
    const text = `The rebate code of the house is ${tokens.chunk}, and it is never told.`;
    const isShown =
      (await draft.append([{ ordinal: 0, text, embedding: randomVector(draft.embeddingDimensions) }])) && (await draft.publish());
    assert(isShown, 'nobody else ingests for a tenant that is being erased');
    return [file.id, store.id];
  }

  async #plantResponse({ responses }: TenantCapabilities, token: string): Promise<string> {
    const id = this.#parts.ids.next('resp_');
    const inputItems = [{ id: this.#parts.ids.next('msg_'), type: 'message', role: 'user', content: token }];
    await responses.create({ id, createdAtMs: this.#parts.nowMs(), response: { id, output_text: token }, inputItems });
    return id;
  }
}

/** A tenant at its quota loses something of its own a moment earlier. */
async function makingRoom<T>(make: () => Promise<T>, giveUp: () => Promise<boolean>): Promise<T> {
  for (let attempt = 0; attempt < 100; attempt++) {
    try {
      return await make();
    } catch (error) {
      if (!(error instanceof BulkheadError) || error.code !== 'quota_exceeded' || !(await giveUp())) throw error;
    }
  }
  throw new BulkheadError('quota_exceeded', 'There is no room for the canaries of an erasure.');
}

/** No two alike, and never a run of zeros: pieces of it are looked for. */
function randomVector(dimensions: number): Float32Array {
  const bytes = new Uint32Array(dimensions);
  crypto.getRandomValues(bytes);
  return Float32Array.from(bytes, (value) => value / 4_294_967_296 + 0.001);
}
