import type { Caller } from '../admission/limit-scopes.ts';
import type { InferenceCall } from './inference-call.ts';

/**
 * Who acts inside the tenant: the token's user; or for a key, whom the request names (OpenAI's `safety_identifier`, before it `user`), in the key's own
 * name space, so that no key speaks for a token's user. It divides what the tenant has and never adds to it.
 */
export function callerOf({ scope, body, sessionId }: Pick<InferenceCall, 'scope' | 'body' | 'sessionId'>): Caller {
  const { kind, user } = scope.principal;
  const named = body['safety_identifier'] ?? body['user'];
  const isNamed = kind === 'api-key' && typeof named === 'string' && named !== '';
  return { user: isNamed ? `${user}:${named}` : user, session: sessionId };
}
