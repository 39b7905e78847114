/** G2 and G3: routes that are no tenant's. A tenant's key opens none of the operator's; what is open to anybody tells nothing of a tenant. */
import { Caller } from '../attempt.ts';
import type { AuditRequest } from '../audit-ports.ts';
import type { CanaryTenant } from '../canary-tenant.ts';
import { nameOf, pathWith } from '../surface-cases.ts';
import { absentIds, type ProbeContext, shown } from './probe-context.ts';

export async function probeDoors(context: ProbeContext): Promise<void> {
  const operator = new Caller(context.calling, undefined, context.ground.operatorCredential);
  const control = (await operator.ask({ method: 'GET', path: '/admin/v1/tenants?limit=1' })).status === 200;
  for (const [index, attacker] of context.tenants.entries()) {
    const victim = context.tenants[(index + 1) % context.tenants.length] as CanaryTenant;
    if (context.kind === 'full' || index === 0) await probeOperatorRoutes(context, { attacker, victim, control });
  }
  await probeOpenRoutes(context);
}

interface Door {
  readonly attacker: CanaryTenant;
  readonly victim: CanaryTenant;
  readonly control: boolean;
}

async function probeOperatorRoutes(context: ProbeContext, { attacker, victim, control }: Door): Promise<void> {
  for (const route of context.registry.routes) {
    if (route.auth !== 'operator') continue;
    // Should a door be open, what would change things meets a tenant that is not there.
    const ids = route.method === 'GET' ? { ...absentIds, ...victim.ids } : absentIds;
    // Parameters of kinds that only operators know are filled with anything: nobody gets as far as to look them up.
    const path = pathWith(route.path, ids) ?? route.path.replaceAll(/:(\w+)/g, '0');
    const request: AuditRequest = { method: route.method, path, ...(route.body !== 'none' && { body: {} }) };
    const answer = await attacker.caller.ask(request);
    context.book.add({
      id: 'G2',
      surface: 'operator',
      attacker: attacker.name,
      victim: victim.name,
      attempt: `${nameOf(route)} with a tenant’s key`,
      expected: 'refused with 401',
      got: shown(answer),
      control,
      leaked: answer.status < 400 || answer.foreign.length > 0 || answer.body.includes(victim.name),
      unclear: answer.status !== 401,
      ms: answer.durationMs,
      answer,
    });
  }
}

async function probeOpenRoutes(context: ProbeContext): Promise<void> {
  const nobody = new Caller(context.calling, undefined, undefined);
  for (const route of context.registry.routes) {
    if (route.auth !== 'none') continue;
    const path = pathWith(route.path, absentIds) ?? route.path;
    const answer = await nobody.ask({ method: route.method, path });
    const named = context.tenants.filter(({ name, ids }) => answer.body.includes(`"${name}"`) || answer.body.includes(ids.keyId));
    context.book.add({
      id: 'G3',
      surface: 'open',
      attacker: 'anybody',
      victim: 'every tenant',
      attempt: nameOf(route),
      expected: 'no canary and no tenant',
      got: named.length === 0 ? shown(answer) : `${named.length} tenants named`,
      control: answer.body.length > 0,
      leaked: answer.foreign.length > 0 || named.length > 0,
      unclear: answer.status >= 500 && answer.status !== 503,
      ms: answer.durationMs,
      answer,
    });
  }
}
