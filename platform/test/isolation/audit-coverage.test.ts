/** What is registered has a case in the audit: a new route, parameter kind or job kind fails here, before it would make every audit inconclusive. */
import { expect, it } from 'vitest';
import { surfaces } from '../../src/app/surfaces.ts';
import { absentIds } from '../../src/audit/probes/probe-context.ts';
import { jobCases, nameOf, parametersOf, routeCases } from '../../src/audit/surface-cases.ts';
import { jobKinds } from '../../src/rag/job-queue.ts';

/** The factories only keep their parts for later, so the table can be listed without a server. */
const routes = surfaces({ path: {}, config: { tiers: {}, bounds: {} }, identity: {}, lifecycle: {} } as never);
const tenantRoutes = routes.filter((route) => route.auth === 'tenant');

it.each(tenantRoutes.map((route) => [nameOf(route), route] as const))('%s is attacked by the audit', (name, route) => {
  const routeCase = routeCases[name];
  expect(routeCase, 'add it to routeCases in audit/surface-cases.ts').toBeDefined();
  const isProbed = routeCase?.holdsNothing !== undefined || parametersOf(route.path).length > 0 || routeCase?.list !== undefined;
  expect(isProbed || (routeCase?.references ?? []).length > 0, 'a case that tries nothing needs its reason in holdsNothing').toBe(true);
  if (routeCase?.holdsNothing !== undefined) return;
  for (const parameter of parametersOf(route.path)) {
    expect(Object.keys(absentIds), 'plant a thing of this kind in audit/canary-tenant.ts').toContain(parameter);
  }
});

it('no case is of a route that is gone', () => {
  const names = new Set(tenantRoutes.map(nameOf));
  expect(Object.keys(routeCases).filter((name) => !names.has(name))).toEqual([]);
});

it('every job kind is known to the audit', () => {
  expect(Object.keys(jobCases).toSorted()).toEqual(Object.keys(jobKinds).toSorted());
});
