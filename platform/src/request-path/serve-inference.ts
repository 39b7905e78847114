/**
 * READ FIRST. The path of a request through the stages, as straight-line code. Authentication and tenancy happened at the edge: a
 * TenantScope is here. What remains:
 *
 *   model and size -> 5 admission -> 6 scheduler -> 7 inference -> 8 metering
 *
 * Nothing here mutates the request. Ownership of the slot and of the reservation passes to a Turn; the Turn of a stream passes to
 * the stream, which ends it however it ends. Nothing here waits for the database.
 */
import type { Admission, Demand, Reservation } from '../admission/admit.ts';
import { estimateInputTokens, type OutputEstimates } from '../admission/estimate.ts';
import type { SessionGuard } from '../admission/session-guard.ts';
import { BulkheadError, quoteInput } from '../errors/bulkhead-error.ts';
import type { Inference, ModelRoute, RoutedCall } from '../inference/deployments.ts';
import { DeliveredOutput } from '../metering/delivered.ts';
import type { Meter } from '../metering/meter.ts';
import type { Clock } from '../primitives/clock.ts';
import type { FairQueue, Ticket } from '../scheduler/fair-queue.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { TenantScope } from '../tenancy/tenant-scope.ts';
import { callerOf } from './caller-of.ts';
import { assertFitsContext } from './context-window.ts';
import type { InferenceCall, ServedFacts } from './inference-call.ts';
import { ServedStream } from './served-stream.ts';
import { Turn } from './turn.ts';

export interface InferenceParts {
  readonly inference: Inference;
  readonly admission: Admission;
  readonly estimates: OutputEstimates;
  readonly sessions: SessionGuard;
  readonly queue: FairQueue;
  readonly meter: Meter;
  readonly metrics: Metrics;
  readonly clock: Clock;
  /** The per-tenant salt of upstream prompt caches: no tenant can probe another's. */
  readonly cacheSalt: (scope: TenantScope) => string;
}

export interface ServedCompletion extends ServedFacts {
  /** The upstream's JSON, byte for byte. */
  readonly body: Buffer;
  readonly parsed: Readonly<Record<string, unknown>>;
}

/** A whole chat completion. */
export async function serveCompletion(parts: InferenceParts, call: InferenceCall): Promise<ServedCompletion> {
  return serveWhole(parts, call, 'chat');
}

/** A whole embeddings answer. */
export async function serveEmbedding(parts: InferenceParts, call: InferenceCall): Promise<ServedCompletion> {
  return serveWhole(parts, call, 'embedding');
}

/** A streamed chat completion. The returned stream owns the turn: iterate it, or dispose of it. */
export async function serveStream(parts: InferenceParts, call: InferenceCall): Promise<ServedStream> {
  const turn = await takeTurn(parts, call, 'chat');
  try {
    const { stream, source } = await parts.inference.stream(turn.facts.route, routedCall(parts, call, turn), call.signal);
    return new ServedStream({ turn, stream, source, estimates: parts.estimates, call });
  } catch (error) {
    turn.abandon();
    throw error;
  }
}

async function serveWhole(parts: InferenceParts, call: InferenceCall, kind: 'chat' | 'embedding'): Promise<ServedCompletion> {
  const turn = await takeTurn(parts, call, kind);
  try {
    const send = kind === 'chat' ? parts.inference.complete : parts.inference.embed;
    const { completion, source } = await send(turn.facts.route, routedCall(parts, call, turn), call.signal);
    const upstreamMs = turn.upstreamMs();
    const delivered = new DeliveredOutput({ inputTokens: turn.facts.inputTokens });
    delivered.acceptCompletion(completion.parsed, completion.usage);
    const result = delivered.result('completed');
    const event = turn.complete({ ...result, ...source });
    parts.estimates.learn(call.scope, call.body, result.usage.outputTokens);
    return {
      limitStates: turn.facts.reservation.states,
      isLooping: turn.facts.isLooping,
      queueMs: turn.facts.permit.queueMs,
      upstreamMs,
      event,
      body: completion.body,
      parsed: completion.parsed,
    };
  } finally {
    turn.abandon();
  }
}

const noOutput = { tokens: 0, isDemanded: true, tokensMax: 0 };

/** Model and size, then 5 admission, then 6 scheduler. What it returns is held and must be ended. */
async function takeTurn(parts: InferenceParts, call: InferenceCall, kind: 'chat' | 'embedding'): Promise<Turn> {
  const { scope, body, requestId, signal, endpoint } = call;
  const startedAtMs = parts.clock.monotonicMs();
  const route = resolveModel(parts, call, kind);
  const inputTokens = estimateInputTokens(body);
  assertFitsContext(body, inputTokens, route.model.contextTokens);
  parts.meter.assertReady();
  const caller = callerOf(call);
  const { outputTokensMax } = route.model;
  const output = kind === 'chat' ? parts.estimates.reserve({ scope, session: caller.session, body, outputTokensMax }) : noOutput;
  const costOf = costOfRoute(parts, route);
  const sessionCall = parts.sessions.enter(scope, caller, body);
  let reservation: Reservation | undefined;
  try {
    reservation = await parts.admission.admit({ scope, caller, workClass: 'interactive', inputTokens, output, costOf });
    const predictedOutputTokens = kind === 'chat' ? parts.estimates.predict(scope, body) : 0;
    const ticket: Ticket = {
      poolId: route.poolId,
      tenantId: scope.tenantId,
      user: caller.user,
      session: caller.session ?? call.conversationId,
      workClass: 'interactive',
      weight: scope.policy.weight,
      inputTokens,
      predictedOutputTokens,
      bytes: inputTokens * 4,
    };
    const permit = await parts.queue.acquire(ticket, signal);
    return new Turn({
      scope,
      requestId,
      endpoint,
      route,
      inputTokens,
      outputTokens: predictedOutputTokens,
      reservation,
      permit,
      isLooping: sessionCall.isLooping,
      meter: parts.meter,
      metrics: parts.metrics,
      clock: parts.clock,
      startedAtMs,
    });
  } catch (error) {
    reservation?.release();
    sessionCall.refused();
    throw error;
  }
}

/** What so many tokens cost at most, whichever deployment answers. */
export function costOfRoute({ meter }: Pick<InferenceParts, 'meter'>, { model, deployments }: ModelRoute): Demand['costOf'] {
  const sources = deployments.map(({ provider, upstreamModel }) => ({ provider: provider.id, upstreamModel }));
  return (inputTokens, outputTokens) => meter.quote({ model: model.id, sources, inputTokens, outputTokens });
}

/** A model the tenant may not use answers exactly as one that does not exist. */
function resolveModel(parts: InferenceParts, call: InferenceCall, kind: 'chat' | 'embedding'): ModelRoute {
  const id = String(call.body['model']);
  const route = parts.inference.resolve(id, call.scope.policy);
  if (route !== undefined && route.model.kind === kind) return route;
  const message = `The model ${quoteInput(id)} does not exist or you do not have access to it.`;
  throw new BulkheadError('model_not_found', message, { param: 'model', ...(call.endpoint === 'responses' && { status: 400 }) });
}

function routedCall(parts: InferenceParts, call: InferenceCall, turn: Turn): RoutedCall {
  const { inputTokens, outputTokens, permit } = turn.facts;
  return {
    body: call.body,
    requestId: call.requestId,
    cacheSalt: parts.cacheSalt(call.scope),
    size: { inputTokens, outputTokens },
    hasWaited: permit.queueMs > 0,
    requeue: () => turn.requeue(parts.queue, call.signal),
  };
}
