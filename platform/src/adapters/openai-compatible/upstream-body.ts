import { createHash } from 'node:crypto';
import type { ProviderCall } from '../../inference/provider.ts';

export interface BodyOptions {
  /** Send the tenant's salt as `prompt_cache_key`. */
  readonly usesCacheSalt: boolean;
}

type Body = Readonly<Record<string, unknown>>;

/** The caller's body under the provider's name of the model. */
export function completionBody(call: ProviderCall, options: BodyOptions): string {
  const { stream: _stream, stream_options: _streamOptions, ...body } = call.body;
  return JSON.stringify({ ...body, model: call.upstreamModel, ...cacheKey(call, options) });
}

/** The same, streaming, with usage asked for; the caller's other stream options stay. */
export function streamBody(call: ProviderCall, options: BodyOptions): string {
  const streamOptions = call.body['stream_options'];
  return JSON.stringify({
    ...call.body,
    model: call.upstreamModel,
    stream: true,
    stream_options: { ...(typeof streamOptions === 'object' ? streamOptions : {}), include_usage: true },
    ...cacheKey(call, options),
  });
}

/** Encoding as the caller says; floats when it says nothing, because that is what servers agree on. */
export function embeddingsBody(call: ProviderCall): string {
  return JSON.stringify({ ...call.body, model: call.upstreamModel, encoding_format: call.body['encoding_format'] ?? 'float' });
}

/** The salt alone, or mixed with the caller's own key: two tenants with the same key stay apart. OpenAI takes 64 characters. */
function cacheKey({ body, cacheSalt }: ProviderCall, { usesCacheSalt }: BodyOptions): Body {
  if (!usesCacheSalt || cacheSalt === undefined) return {};
  const own = body['prompt_cache_key'];
  const key = JSON.stringify([cacheSalt, typeof own === 'string' ? own : null]);
  return { prompt_cache_key: createHash('sha256').update(key).digest('hex') };
}
