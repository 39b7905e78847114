/** Response headers of everything that was served by the inference path: limits, where the time went, what it cost. */
import { rateLimitHeaders } from '../../admission/rate-limit-headers.ts';
import type { Clock } from '../../primitives/clock.ts';
import { formatUsd } from '../../primitives/money.ts';
import type { ServedFacts } from '../../request-path/inference-call.ts';

/** `startedAtMs` is monotonic. Overhead is what we added: everything but the queue and the upstream. */
export function servedHeaders(facts: ServedFacts, clock: Clock, startedAtMs: number): Record<string, string> {
  const totalMs = clock.monotonicMs() - startedAtMs;
  const headers = rateLimitHeaders(facts.limitStates);
  headers['openai-processing-ms'] = String(Math.round(totalMs));
  headers['x-bulkhead-queue-ms'] = facts.queueMs.toFixed(1);
  headers['x-bulkhead-upstream-ms'] = facts.upstreamMs.toFixed(1);
  headers['x-bulkhead-overhead-ms'] = Math.max(0, totalMs - facts.queueMs - facts.upstreamMs).toFixed(1);
  headers['x-bulkhead-cache'] = 'bypass';
  if (facts.isLooping) headers['x-bulkhead-warning'] = 'agent_loop';
  if (facts.event !== undefined && facts.event.cost !== null) headers['x-bulkhead-cost-usd'] = formatUsd(facts.event.cost);
  return headers;
}
