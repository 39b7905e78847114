/**
 * F: every route of the tenants with every id of another tenant, in the path, in the body and as a cursor. A foreign id must be answered as an
 * absent one is: the same status, headers, length and body. G1: a route without a case fails the run.
 */
import type { SeenAnswer } from '../attempt.ts';
import type { AuditedRoute, AuditRequest } from '../audit-ports.ts';
import type { CanaryIds, CanaryTenant, OwnDeletions } from '../canary-tenant.ts';
import {
  type AddressedIds,
  type CursorKind,
  nameOf,
  parametersOf,
  pathWith,
  type Reference,
  type RouteCase,
  routeCases,
} from '../surface-cases.ts';
import { absentIds, outlineOf, type Pair, type ProbeContext, shown } from './probe-context.ts';

/** What was tried against routes whose owner deletes at the end; judged when the owner has. */
export type PendingDeletions = ((deletions: ReadonlyMap<string, OwnDeletions>) => void)[];

type Ids = { readonly [Name in keyof CanaryIds]: string | undefined };
type Variant = (attacker: Ids, addressed: Ids) => Ids;

/** Which ids of a path are the attacker's own and which are aimed at the victim. */
function variantsOf(parameters: readonly string[]): readonly (readonly [string, Variant])[] {
  const whole: readonly [string, Variant] = ['foreign ids', (_, addressed) => addressed];
  if (!(parameters.includes('storeId') && parameters.length > 1)) return [whole];
  return [
    whole,
    ['a foreign id inside one’s own store', (attacker, addressed) => ({ ...addressed, storeId: attacker.storeId })],
    ['one’s own id inside a foreign store', (attacker, addressed) => ({ ...attacker, storeId: addressed.storeId })],
  ];
}

export async function probeRoutes(context: ProbeContext): Promise<PendingDeletions> {
  const pending: PendingDeletions = [];
  const before = await ownView(context);
  for (const route of context.registry.routes) {
    if (route.auth !== 'tenant') continue;
    const routeCase = routeCases[nameOf(route)];
    if (routeCase === undefined) missingCase(context, route);
    else if (isProbedNow(context, route, routeCase)) await probeRoute(context, { route, routeCase, pending });
  }
  await judgeDamage(context, before);
  return pending;
}

/** A smoke run reads and searches where most is to be had; a full one tries everything, and to change and delete, too. */
function isProbedNow({ kind }: ProbeContext, route: AuditedRoute, routeCase: RouteCase): boolean {
  if (routeCase.holdsNothing !== undefined) return false;
  return kind === 'full' || routeCase.surface === 'chunks' || (route.method === 'GET' && smokeSurfaces.has(routeCase.surface));
}

const smokeSurfaces: ReadonlySet<string> = new Set(['files', 'conversations']);

function missingCase({ book }: ProbeContext, route: AuditedRoute): void {
  const expected = 'a case in audit/surface-cases.ts';
  const what = { id: 'G1', surface: 'registry', attacker: '-', victim: '-', attempt: nameOf(route), expected } as const;
  book.add({ ...what, got: 'none', control: false, leaked: false, ms: 0 });
}

interface Probed {
  readonly route: AuditedRoute;
  readonly routeCase: RouteCase;
  readonly pending: PendingDeletions;
}

async function probeRoute(context: ProbeContext, probed: Probed): Promise<void> {
  const parameters = parametersOf(probed.route.path);
  if (parameters.length > 0) await probeIds(context, probed, variantsOf(parameters));
  for (const reference of probed.routeCase.references ?? []) await probeReference(context, probed, reference);
  if (probed.routeCase.list !== undefined) await probeList(context, probed);
}

async function probeIds(context: ProbeContext, probed: Probed, variants: readonly (readonly [string, Variant])[]): Promise<void> {
  const { route, routeCase } = probed;
  const controls = new Map<CanaryTenant, boolean>();
  if (routeCase.isDeletion !== true) {
    for (const tenant of context.tenants) controls.set(tenant, await succeeds(tenant, requestOf(probed, tenant, tenant.ids)));
  }
  for (const [title, variant] of variants) {
    const absent = new Map<CanaryTenant, SeenAnswer | undefined>();
    for (const attacker of context.tenants) {
      const request = requestOf(probed, attacker, variant(attacker.ids, absentIds));
      absent.set(attacker, request && (await attacker.caller.ask(request)));
    }
    for (const pair of context.pairs) {
      const request = requestOf(probed, pair.attacker, variant(pair.attacker.ids, pair.victim.ids));
      const nothing = absent.get(pair.attacker);
      if (request === undefined || nothing === undefined) continue;
      const foreign = await pair.attacker.caller.ask(request);
      const judge = (control: boolean) => addComparison(context, pair, { route, routeCase, title, foreign, nothing, control });
      if (routeCase.isDeletion !== true) judge(controls.get(pair.victim) ?? false);
      else probed.pending.push((deletions) => judge(deletions.get(pair.victim.name)?.[nameOf(route)]?.status === 200));
    }
  }
}

interface Comparison {
  readonly route: AuditedRoute;
  readonly routeCase: RouteCase;
  readonly title: string;
  readonly foreign: SeenAnswer;
  readonly nothing: SeenAnswer;
  readonly control: boolean;
}

/** Success, or a canary, is a leak; so is any difference by which a foreign thing could be told from none. */
function addComparison({ book }: ProbeContext, { attacker, victim }: Pair, compared: Comparison): void {
  const { route, routeCase, title, foreign, nothing, control } = compared;
  const isSame = outlineOf(foreign) === outlineOf(nothing);
  const isRefused = foreign.status >= 400 && foreign.status < 500 && foreign.status !== 429;
  const isBroken = foreign.status >= 500 || foreign.status === 429 || nothing.status >= 500 || nothing.status === 429;
  book.add({
    id: 'F1',
    surface: routeCase.surface,
    attacker: attacker.name,
    victim: victim.name,
    attempt: `${nameOf(route)}: ${title}`,
    expected: `as an absent id: status ${nothing.status}`,
    got: isSame ? shown(foreign) : `${shown(foreign)}, told apart from an absent id`,
    control,
    leaked: foreign.foreign.length > 0 || (!isBroken && (!isSame || !isRefused)),
    unclear: isBroken,
    ms: foreign.durationMs,
    answer: foreign,
  });
}

function requestOf({ route, routeCase }: Probed, caller: CanaryTenant, ids: Ids): AuditRequest | undefined {
  const path = pathWith(route.path, ids);
  if (path === undefined) return undefined;
  const body = routeCase.body?.(caller) ?? (route.body === 'json' ? {} : undefined);
  return { method: route.method, path, ...(body !== undefined && { body }) };
}

async function succeeds(tenant: CanaryTenant, request: AuditRequest | undefined): Promise<boolean> {
  return request !== undefined && (await tenant.caller.ask(request)).status === 200;
}

async function probeReference(context: ProbeContext, { route, routeCase }: Probed, reference: Reference): Promise<void> {
  const { chatModel, tenants, pairs } = context;
  if (reference.needsModel === true && chatModel === undefined) return;
  const requestFor = (caller: CanaryTenant, addressed: AddressedIds): AuditRequest => ({
    method: 'POST',
    path: reference.path(caller),
    body: reference.body(caller, addressed, chatModel ?? ''),
  });
  const controls = new Map<CanaryTenant, boolean>();
  const absent = new Map<CanaryTenant, SeenAnswer>();
  for (const tenant of tenants) {
    if (tenant.ids[reference.names] !== undefined) {
      controls.set(tenant, await succeeds(tenant, requestFor(tenant, tenant.ids as AddressedIds)));
    }
    absent.set(tenant, await tenant.caller.ask(requestFor(tenant, absentIds)));
  }
  for (const pair of pairs) {
    const nothing = absent.get(pair.attacker);
    if (nothing === undefined || pair.victim.ids[reference.names] === undefined) continue;
    const foreign = await pair.attacker.caller.ask(requestFor(pair.attacker, pair.victim.ids as AddressedIds));
    const control = controls.get(pair.victim) ?? false;
    addComparison(context, pair, { route, routeCase, title: reference.title, foreign, nothing, control });
  }
}

/** One's own list holds nothing foreign, and another's id is no cursor of it. */
async function probeList(context: ProbeContext, { route, routeCase }: Probed): Promise<void> {
  const { cursor } = routeCase.list ?? {};
  const lists = new Map<CanaryTenant, SeenAnswer>();
  for (const tenant of context.tenants) {
    const path = pathWith(route.path, tenant.ids);
    if (path !== undefined) lists.set(tenant, await tenant.caller.ask({ method: 'GET', path: `${path}?limit=100` }));
  }
  for (const pair of context.pairs) {
    const { attacker, victim } = pair;
    const own = lists.get(attacker);
    const theirs = lists.get(victim);
    if (own === undefined || theirs === undefined) continue;
    const found = [...victim.fileIds, ...Object.values(victim.ids)].filter((id) => id !== undefined && own.body.includes(id));
    const control = cursor === undefined ? theirs.status === 200 : theirs.body.includes(victim.ids[cursor] ?? '-');
    const what = { surface: routeCase.surface, attacker: attacker.name, victim: victim.name, ms: own.durationMs, answer: own } as const;
    const got = found.length === 0 ? shown(own) : `${found.length} foreign ids`;
    const leaked = found.length > 0 || own.foreign.length > 0;
    book(context, {
      ...what,
      id: 'F2',
      attempt: `${nameOf(route)}: others in one’s own list`,
      expected: 'own ids alone',
      got,
      control,
      leaked,
    });
    if (cursor !== undefined) await probeCursor(context, pair, { route, routeCase, cursor, control });
  }
}

function book(
  context: ProbeContext,
  finding: Omit<Parameters<ProbeContext['book']['add']>[0], 'unclear'> & { readonly answer: SeenAnswer },
): void {
  context.book.add({ ...finding, unclear: finding.answer.status !== 200 });
}

interface CursorProbe {
  readonly route: AuditedRoute;
  readonly routeCase: RouteCase;
  readonly cursor: CursorKind;
  readonly control: boolean;
}

async function probeCursor(context: ProbeContext, pair: Pair, probe: CursorProbe): Promise<void> {
  const { route, routeCase, cursor, control } = probe;
  const path = pathWith(route.path, pair.attacker.ids);
  const id = pair.victim.ids[cursor];
  if (path === undefined || id === undefined) return;
  for (const name of ['after', 'before']) {
    const ask = (value: string | undefined) => pair.attacker.caller.ask({ method: 'GET', path: `${path}?${name}=${value}` });
    const nothing = await ask(absentIds[cursor]);
    const foreign = await ask(id);
    addComparison(context, pair, { route, routeCase, title: `another’s id as ${name}`, foreign, nothing, control });
  }
}

/** What each owner sees of its own, to be compared after the attacks. */
async function ownView({ tenants, kind }: ProbeContext): Promise<ReadonlyMap<CanaryTenant, string>> {
  const views = new Map<CanaryTenant, string>();
  for (const tenant of tenants) views.set(tenant, await viewOf(tenant, kind));
  return views;
}

async function viewOf({ caller, ids, texts }: CanaryTenant, kind: 'full' | 'smoke'): Promise<string> {
  const file = await caller.ask({ method: 'GET', path: `/v1/files/${ids.fileId}/content` });
  const attached = await caller.ask({ method: 'GET', path: `/v1/vector_stores/${ids.storeId}/files/${ids.fileId}` });
  const store = await caller.ask({ method: 'GET', path: `/v1/vector_stores/${ids.storeId}` });
  const said = ids.responseId === undefined ? undefined : await caller.ask({ method: 'GET', path: `/v1/responses/${ids.responseId}` });
  const { secrets } = texts;
  return JSON.stringify([
    kind,
    file.body === texts.vault,
    attached.body.includes(secrets.attribute),
    store.body.includes(secrets.storeName) && store.body.includes(secrets.metadata),
    said === undefined || said.body.includes(secrets.conversation),
  ]);
}

async function judgeDamage(context: ProbeContext, before: ReadonlyMap<CanaryTenant, string>): Promise<void> {
  const intact = JSON.stringify([context.kind, true, true, true, true]);
  for (const tenant of context.tenants) {
    const after = await viewOf(tenant, context.kind);
    context.book.add({
      id: 'F3',
      surface: 'files',
      attacker: 'all others',
      victim: tenant.name,
      attempt: 'everything of the victim is as it was after the attacks',
      expected: 'unchanged',
      got: after === intact ? 'unchanged' : 'changed',
      control: before.get(tenant) === intact,
      leaked: before.get(tenant) === intact && after !== intact,
      ms: 0,
    });
  }
}
