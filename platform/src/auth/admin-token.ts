import { hash, timingSafeEqual } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import { bearerOf } from './credentials.ts';

/** What the configuration requires as well; here it keeps an empty or guessable token from ever opening anything. */
export const adminTokenLengthMin = 16;

/** Whether the request carries the operator's token. Compares digests, so neither content nor length shows in the time it takes. */
export function hasAdminToken(headers: IncomingHttpHeaders, adminToken: string): boolean {
  const sent = bearerOf(headers.authorization ?? '') ?? '';
  return timingSafeEqual(digest(sent), digest(adminToken)) && adminToken.length >= adminTokenLengthMin;
}

function digest(text: string): Buffer {
  return hash('sha256', text, 'buffer');
}
