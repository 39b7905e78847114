/**
 * Which deployment a call goes to. A tenant's calls that begin alike go to the same one while that is not busier than a quarter above the others (consistent hashing with
 * bounded loads, Mirrokni et al., 2016; the hash is rendezvous, Thaler and Ravishankar, 1996), because providers keep the beginnings of prompts and
 * charge less for them. Everything else goes to the least loaded. The order in which calls get their turn is the queue's and is not touched.
 */
import type { Deployment } from './deployment.ts';
import type { ProviderCall } from './provider.ts';

const loadBound = 1.25;
const prefixCharacters = 1_024;

/** One of `candidates`, each of which has room; undefined when there is none. */
export function chooseDeployment(
  candidates: readonly Deployment[],
  call: Pick<ProviderCall, 'body' | 'cacheSalt'>,
): Deployment | undefined {
  const [first] = candidates;
  if (candidates.length < 2) return first;
  return preferred(candidates, call) ?? candidates.reduce((best, each) => (each.load < best.load ? each : best));
}

function preferred(candidates: readonly Deployment[], call: Pick<ProviderCall, 'body' | 'cacheSalt'>): Deployment | undefined {
  const prefix = call.cacheSalt === undefined ? undefined : prefixOf(call.body['messages']);
  if (prefix === undefined) return undefined;
  const key = hashText(`${call.cacheSalt} ${prefix}`, 0);
  let best: Deployment | undefined;
  let bestHash = -1;
  let inFlight = 1;
  for (const candidate of candidates) {
    const hash = hashText(candidate.id, key);
    inFlight += candidate.inFlight;
    if (hash <= bestHash) continue;
    best = candidate;
    bestHash = hash;
  }
  return best !== undefined && best.inFlight + 1 <= Math.ceil((loadBound * inFlight) / candidates.length) ? best : undefined;
}

/** The start of the first message: what a provider's cache would know it by. */
function prefixOf(messages: unknown): string | undefined {
  const [first] = Array.isArray(messages) ? (messages as readonly { readonly content?: unknown }[]) : [];
  const content = first?.content;
  if (typeof content === 'string') return content.slice(0, prefixCharacters);
  const [part] = Array.isArray(content) ? (content as readonly { readonly text?: unknown }[]) : [];
  return typeof part?.text === 'string' ? part.text.slice(0, prefixCharacters) : undefined;
}

/** FNV-1a with a final mix, 32 bits. Nobody gains by collisions: the tenant's secret salt is in the key. */
function hashText(text: string, seed: number): number {
  let hash = (0x811c9dc5 ^ seed) >>> 0;
  for (let at = 0; at < text.length; at++) hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193) >>> 0;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b) >>> 0;
  return (hash ^ (hash >>> 13)) >>> 0;
}
