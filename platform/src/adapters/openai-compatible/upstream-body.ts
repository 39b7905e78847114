import { createHash } from 'node:crypto';
import type { ProviderCall } from '../../inference/provider.ts';

/** The field that keeps prompt caches apart: OpenAI routes by `prompt_cache_key`, vLLM separates by `cache_salt`; undefined: the server takes neither. */
export type CacheField = 'prompt_cache_key' | 'cache_salt' | undefined;

type Body = Readonly<Record<string, unknown>>;

/** The caller's body under the provider's name of the model. */
export function completionBody(call: ProviderCall, cacheField: CacheField): string {
  const { stream: _stream, stream_options: _streamOptions, ...body } = withoutCacheFields(call.body);
  return JSON.stringify({ ...body, model: call.upstreamModel, ...cacheKey(call, cacheField) });
}

/** The same, streaming, with usage asked for; the caller's other stream options stay. */
export function streamBody(call: ProviderCall, cacheField: CacheField): string {
  const streamOptions = call.body['stream_options'];
  return JSON.stringify({
    ...withoutCacheFields(call.body),
    model: call.upstreamModel,
    stream: true,
    stream_options: { ...(typeof streamOptions === 'object' ? streamOptions : {}), include_usage: true },
    ...cacheKey(call, cacheField),
  });
}

/** Encoding as the caller says; floats when it says nothing, because that is what servers agree on. */
export function embeddingsBody(call: ProviderCall): string {
  return JSON.stringify({ ...call.body, model: call.upstreamModel, encoding_format: call.body['encoding_format'] ?? 'float' });
}

/** The salt alone, or mixed with the caller's own key: two tenants with the same key stay apart. OpenAI takes 64 characters. */
function cacheKey({ body, cacheSalt }: ProviderCall, field: CacheField): Body {
  if (field === undefined || cacheSalt === undefined) return {};
  const own = body[field];
  const key = JSON.stringify([cacheSalt, typeof own === 'string' ? own : null]);
  return { [field]: createHash('sha256').update(key).digest('hex') };
}

/** As a caller names them they would name another tenant's cache as well. */
function withoutCacheFields(body: Body): Body {
  const { prompt_cache_key: _key, cache_salt: _salt, ...rest } = body;
  return rest;
}
