/**
 * Embeddings for ingestion: the tenant's own work behind the requests, in the batch class of each stage. Nobody waits for it, so what its limits or
 * the queue refuse is tried again later by the job, and its calls are cut so small that the tenant's limits can hold them.
 */
import { BulkheadError } from '../errors/bulkhead-error.ts';
import type { IdSource } from '../primitives/ids.ts';
import type { TenantScope } from '../tenancy/tenant-scope.ts';
import { costOfRoute, type InferenceParts } from './serve-inference.ts';
import { Turn } from './turn.ts';

export interface IngestionEmbedding {
  readonly scope: TenantScope;
  readonly model: string;
  readonly texts: readonly string[];
  readonly signal: AbortSignal;
}

/** One call holds a permit for a short time, whatever the document. */
const callTokensMax = 16_384;
/** Of a minute's tokens in one call: larger bites wait long and then take all. */
const callShareOfLimit = 0.25;

/** Tokens of one call that the tenant's limits can hold. */
export function ingestionCallTokensMax({ policy, principal }: TenantScope): number {
  const limits = [policy.limits, principal.keyPolicy?.limits, policy.perTeam?.limits, policy.perUser?.limits];
  const perMinute = Math.min(
    ...limits.flatMap((own) => [own?.tokensPerMinute ?? Number.POSITIVE_INFINITY, own?.inputTokensPerMinute ?? Number.POSITIVE_INFINITY]),
  );
  return Math.min(callTokensMax, Math.floor(perMinute * callShareOfLimit));
}

/** Vectors in the order of the texts. Throws the refusals of admission and of the queue, and what the provider throws. */
export async function serveIngestionEmbedding(
  parts: InferenceParts & { readonly ids: IdSource },
  call: IngestionEmbedding,
): Promise<readonly Float32Array[]> {
  const { scope, model, texts, signal } = call;
  const requestId = parts.ids.next('req_');
  const turn = await takeTurn(parts, call, requestId);
  try {
    const { route, inputTokens } = turn.facts;
    const body = { model, input: texts, encoding_format: 'float' };
    const size = { inputTokens, outputTokens: 0 };
    const requeue = () => turn.requeue(parts.queue, signal);
    const { completion, source } = await parts.inference.embed(
      route,
      { body, requestId, cacheSalt: parts.cacheSalt(scope), size, requeue },
      signal,
    );
    const usage = completion.usage ?? { inputTokens, outputTokens: 0 };
    turn.complete({ usage, estimated: completion.usage === undefined, outcome: 'completed', serviceTier: 'default', ...source });
    const items = completion.parsed['data'] as readonly { readonly embedding: readonly number[] }[];
    return items.map((item) => Float32Array.from(item.embedding));
  } finally {
    turn.abandon();
  }
}

async function takeTurn(parts: InferenceParts, { scope, model, texts, signal }: IngestionEmbedding, requestId: string): Promise<Turn> {
  const { meter, metrics, clock } = parts;
  const startedAtMs = clock.monotonicMs();
  // The store's model, whatever the tenant's policy grants to its own calls.
  const route = parts.inference.resolve(model, {});
  if (route === undefined)
    throw new BulkheadError('model_not_found', 'The embedding model of the vector store is not configured any more.');
  const inputTokens = texts.reduce((sum, text) => sum + Math.ceil(Buffer.byteLength(text) / 4), 0);
  meter.assertReady();
  const output = { tokens: 0, isDemanded: true, tokensMax: 0 };
  const { user } = scope.principal;
  const costOf = costOfRoute(parts, route);
  const reservation = await parts.admission.admit({ scope, caller: { user }, workClass: 'batch', inputTokens, output, costOf });
  try {
    const { tenantId } = scope.principal;
    const { poolId } = route;
    const { weight } = scope.policy;
    const size = { inputTokens, predictedOutputTokens: 0, bytes: inputTokens * 4 };
    const permit = await parts.queue.acquire({ poolId, tenantId, user, workClass: 'batch', weight, ...size }, signal);
    return new Turn({
      scope,
      requestId,
      endpoint: 'ingestion',
      route,
      inputTokens,
      outputTokens: 0,
      reservation,
      permit,
      isLooping: false,
      meter,
      metrics,
      clock,
      startedAtMs,
    });
  } catch (error) {
    reservation.release();
    throw error;
  }
}
