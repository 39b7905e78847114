import { isObject, type JsonObject } from '../../upstream/json-object.ts';
import { invalid, unsupported } from './unsupported.ts';

const mediaTypes: ReadonlySet<string> = new Set(['image/jpeg', 'image/png', 'image/gif', 'image/webp']);

/** An `image_url` part: a base64 data URL, or an address which the provider fetches, not we. `detail` has no counterpart and is a hint. */
export function imageOf(image: unknown, param: string): JsonObject {
  const url = isObject(image) ? image['url'] : undefined;
  if (typeof url !== 'string') throw invalid(`${param}.url`, 'must be a text');
  if (/^https?:\/\//i.test(url)) return { type: 'image', source: { type: 'url', url } };
  const comma = url.indexOf(',');
  const [, mediaType] = /^data:([\w/+.-]{1,64});base64$/i.exec(url.slice(0, Math.max(comma, 0))) ?? [];
  if (mediaType === undefined) throw invalid(`${param}.url`, 'must be an http address or a base64 data URL');
  if (!mediaTypes.has(mediaType.toLowerCase())) throw unsupported(`${param}.url`, 'images that are not JPEG, PNG, GIF or WebP');
  return { type: 'image', source: { type: 'base64', media_type: mediaType.toLowerCase(), data: url.slice(comma + 1) } };
}
