/**
 * Under which name a request stands at its level. Names come from clients, so their number is bounded: a tenant that mints users or sessions gains no memory, and
 * requests that wait under one name go on doing so, for they start in order of arrival.
 */
import { fnvHashOf } from '../primitives/fnv-hash.ts';
import type { Linked, TenantFlow, UserFlow } from './flow.ts';

/** Users of a tenant in a class of a pool that have a flow of their own; those beyond share some. */
export const usersPerTenantMax = 2_000;
const sharedPlaces = 64;
/** Sessions of a user that have a flow of their own; beyond it a new one shares that of requests without a session. */
export const sessionsPerUserMax = 256;
/** Of requests without a session, and of sessions beyond those. */
export const sharedSessionPlace = '';

export function findUser<Request extends Linked<Request>>(
  tenant: TenantFlow<Request> | undefined,
  user: string,
): UserFlow<Request> | undefined {
  return tenant?.users.find(userPlaceOf(tenant, user));
}

export function userPlaceOf<Request extends Linked<Request>>(tenant: TenantFlow<Request>, user: string): string {
  const { users } = tenant;
  if (users.find(user) !== undefined) return user;
  const isFull = users.flowCount >= usersPerTenantMax;
  if (!isFull && !tenant.hasSharedPlaces) return user;
  const shared = `shared place ${fnvHashOf(user) % sharedPlaces}`;
  const isWaitingThere = (users.find(shared)?.queued ?? 0) > 0;
  if (!isFull && !isWaitingThere) return user;
  tenant.hasSharedPlaces = true;
  return shared;
}

export function sessionPlaceOf<Request extends Linked<Request>>(
  { sessions, sharedWaiting }: UserFlow<Request>,
  session: string | undefined,
): string {
  if (session === undefined || sharedWaiting?.has(session) === true) return sharedSessionPlace;
  return sessions.flowCount < sessionsPerUserMax || sessions.find(session) !== undefined ? session : sharedSessionPlace;
}

/** A request has come to wait in the shared place of its user (1), or has left it (-1). */
export function countShared<Request extends Linked<Request>>(user: UserFlow<Request>, session: string, change: 1 | -1): void {
  user.sharedWaiting ??= new Map();
  const waiting = (user.sharedWaiting.get(session) ?? 0) + change;
  if (waiting > 0) user.sharedWaiting.set(session, waiting);
  else user.sharedWaiting.delete(session);
}
