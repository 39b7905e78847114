/**
 * The audit of the system as it is: a full run passes with every family, every control held and every registered surface probed; its report is signed
 * and chained; what it planted is gone; nobody but an operator can begin or read one.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type ChainedReport, reportFault, type SignedReport } from '../../src/audit/sign-report.ts';
import { jobCases, routeCases, tableCases } from '../../src/audit/surface-cases.ts';
import { DocumentSigner } from '../../src/primitives/signed-document.ts';
import { type AuditedApp, openAuditedApp } from './audited-app.ts';

/** The login of the server's test owns no databases, so all are pooled there; elsewhere the last tenant has one of its own. */
const isServer = process.env['BULKHEAD_TEST_ENGINE'] === 'server';

let world: AuditedApp;
let full: ChainedReport;
let smoke: ChainedReport;
beforeAll(async () => {
  world = await openAuditedApp({ capacityShareMax: 0.4, ...(isServer ? {} : { siloedTenants: 1 }) });
  full = await world.audit();
  smoke = await world.audit({ kind: 'smoke' });
}, 300_000);
afterAll(async () => {
  await world?.[Symbol.asyncDispose]();
});

/** What a person needs to see when it fails. */
const failed = (report: ChainedReport) =>
  report.probes
    .filter(({ verdict }) => verdict !== 'PASS')
    .slice(0, 5)
    .map(({ id, attacker, victim, attempt, got, positiveControl }) => [id, attacker, victim, attempt, got, positiveControl].join(' | '));

describe('a full audit', () => {
  it('passes, with every positive control held', () => {
    expect(failed(full)).toEqual([]);
    expect(full.verdict).toBe('PASS');
    expect(full.summary.pass).toBe(full.probes.length);
  });

  it('attacked every ordered pair of four tenants with every family', () => {
    expect(full.tenants.map(({ id }) => id)).toEqual(['canary-1', 'canary-2', 'canary-3', 'canary-4']);
    expect(full.tenants.at(-1)?.isolation).toBe(isServer ? 'pooled' : 'siloed');
    expect(full.pairs).toBe(12);
    for (const id of ['V1', 'V2', 'V3', 'V4', 'V5', 'V6', 'V8', 'K1', 'K2', 'K3', 'F1', 'F2', 'U2', 'I1', 'I3', 'B1', 'J9', 'J11', 'J29']) {
      const pairs = new Set(full.probes.filter((probe) => probe.id === id).map(({ attacker, victim }) => `${attacker} ${victim}`));
      expect(pairs.size, id).toBe(12);
    }
    const ids = new Set(full.probes.map(({ id }) => id));
    const once = [
      'V7',
      'F3',
      'F4',
      'U1',
      'Q1',
      'I2',
      'G2',
      'G3',
      'L0',
      'J1',
      'J2',
      'J3',
      'J4',
      'J5',
      'J6',
      'J7',
      'J8',
      'J10',
      'J12',
      'J13',
      'J14',
    ];
    const rest = ['J15', 'J16', 'J17', 'J18', 'J19', 'J20', 'J21', 'J23', 'J24', 'J25', 'J26', 'J28'];
    expect([...once, ...rest].filter((id) => !ids.has(id))).toEqual([]);
  });

  it('has a probe for every registered route, table and job kind', () => {
    expect(full.summary.surfacesProbed).toBe(full.summary.surfacesRegistered);
    const known = Object.keys(routeCases).length + Object.keys(tableCases).length + Object.keys(jobCases).length;
    expect(full.summary.surfacesRegistered).toBeGreaterThan(known);
  });

  it('found every known item, and says what it cannot try', () => {
    expect(full.recallFloor).toMatchObject({ min: 1, queries: 48 });
    expect(full.timing.map(({ question }) => question)).toEqual(['GET a file', 'search a store']);
    expect(full.notApplicable.length).toBeGreaterThan(5);
  });

  it('holds no canary and no key', () => {
    expect(JSON.stringify(full)).not.toMatch(/qzcnry|bh_live|KESTREL/);
  });
});

describe('a smoke audit', () => {
  it('passes with what it tries', () => {
    expect(failed(smoke)).toEqual([]);
    expect(smoke.probes.length).toBeLessThan(full.probes.length / 2);
  });
});

describe('a paced audit', () => {
  it('keeps to its share of the time', async () => {
    const report = await world.audit({ kind: 'smoke', only: ['inside'], paced: true });
    expect(failed(report)).toEqual([]);
    expect(report.capacity).toMatchObject({ max: 0.4 });
    expect(report.capacity.measured).toBeGreaterThan(0);
    expect(report.capacity.measured).toBeLessThanOrEqual(0.4);
    expect(full.capacity.max).toBeNull();
  });
});

describe('reports', () => {
  it('are signed, and each takes in the hash of the one before it', async () => {
    const { body } = await world.admin('GET', '/admin/v1/signing-key');
    const { public_key: key } = JSON.parse(body) as { readonly public_key: string };
    const document = JSON.parse((await world.admin('GET', `/admin/v1/audits/${full.id}`)).body) as SignedReport;
    expect(reportFault(document, key)).toBeUndefined();
    expect(full).toMatchObject({ number: 1, previous: null });
    expect(smoke).toMatchObject({ number: 2, previous: full.chainHead });
    const changed = (body: ChainedReport) => reportFault({ ...document, body }, key);
    expect(changed({ ...full, verdict: 'LEAK' })).toBe('changed after it was signed');
    expect(changed({ ...full, probes: full.probes.slice(1) })).toBe('changed after it was signed');
    expect(reportFault(document, new DocumentSigner(Buffer.alloc(32)).publicKey)).toBe('signed by another key');
  });

  it('are listed newest first and read by operators alone', async () => {
    const list = JSON.parse((await world.admin('GET', '/admin/v1/audits?limit=1')).body) as {
      readonly data: unknown[];
      readonly has_more: boolean;
    };
    expect(list).toMatchObject({ data: [{ number: 3, kind: 'smoke', verdict: 'PASS' }], has_more: true });
    const strangers = await world.app.inject({ method: 'GET', path: `/admin/v1/audits/${full.id}` });
    expect(strangers.status).toBe(401);
    expect((await world.admin('GET', '/admin/v1/audits/audit_none')).status).toBe(404);
  });
});

describe('what an audit leaves', () => {
  it('is nothing but its tenants: no file, no store, no key that works', async () => {
    const { data } = JSON.parse((await world.admin('GET', '/admin/v1/tenants')).body) as { readonly data: { id: string; name: string }[] };
    expect(data.map(({ id }) => id)).toEqual(full.tenants.map(({ id }) => id));
    expect(data[0]?.name).toBe('Isolation audit, canary 1');
    for (const { id } of data) {
      const keys = JSON.parse((await world.admin('GET', `/admin/v1/tenants/${id}/keys`)).body) as {
        readonly data: { revoked_at: unknown }[];
      };
      expect(keys.data.length).toBeGreaterThan(0);
      expect(keys.data.filter(({ revoked_at }) => revoked_at === null)).toEqual([]);
    }
    const counts = `SELECT (SELECT count(*) FROM app.file) + (SELECT count(*) FROM app.vector_store) + (SELECT count(*) FROM app.chunk)
      + (SELECT count(*) FROM app.response) + (SELECT count(*) FROM control.job) AS left_behind`;
    await world.asSuperuser(
      `DO $$ BEGIN IF (SELECT left_behind FROM (${counts}) c) <> 0 THEN RAISE EXCEPTION 'something was left'; END IF; END $$`,
    );
  });

  it('raised no alarm but for the jobs it forged', () => {
    expect(new Set(world.alarms)).toEqual(new Set(['forged_envelope']));
  });
});

describe('an order', () => {
  it.each([
    ['an unknown kind', { kind: 'deep' }],
    ['tenants without consent', { tenants: ['acme'] }],
    ['too few tenants', { canary_tenants: false, tenants: ['acme'], consent: true }],
    ['an unknown field', { depth: 3 }],
  ])('is refused: %s', async (_, order) => {
    expect((await world.admin('POST', '/admin/v1/audits', order)).status).toBe(400);
  });

  it('waits for the run under way', async () => {
    const first = world.audit({ kind: 'smoke', only: ['search'] });
    await expect(world.admin('POST', '/admin/v1/audits', {})).resolves.toMatchObject({ status: 400 });
    expect((await first).verdict).toBe('PASS');
  });

  it('includes tenants that somebody uses, when their operator agrees, and leaves nothing with them', async () => {
    await world.admin('POST', '/admin/v1/tenants', { id: 'acme', tier: 'test' });
    const report = await world.audit({ kind: 'smoke', only: ['inside', 'search', 'routes'], tenants: ['acme'], consent: true });
    expect(failed(report)).toEqual([]);
    expect(report.pairs).toBe(20);
    expect(report.probes.filter(({ victim }) => victim === 'acme').length).toBeGreaterThan(20);
    await world.asSuperuser(
      `DO $$ BEGIN IF EXISTS (SELECT FROM app.file WHERE tenant_id = 'acme') THEN RAISE EXCEPTION 'something was left'; END IF; END $$`,
    );
  });

  it('for a tenant that does not exist ends with a reason', async () => {
    await expect(world.audit({ tenants: ['nobody'], consent: true })).rejects.toThrow('there is no tenant');
  });
});
