/** Thresholds of budgets, from the ledger's transaction to the endpoint: each told once, signed, again until it is heard, and to nobody else. */
import { createHmac } from 'node:crypto';
import { createServer, type IncomingHttpHeaders, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text as textOf } from 'node:stream/consumers';
import { setTimeout as wait } from 'node:timers/promises';
import { sql } from 'kysely';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { PostgresUsageLedger } from '../../src/adapters/postgres/usage-ledger.ts';
import { PostgresWebhookOutbox } from '../../src/adapters/postgres/webhook-outbox.ts';
import { sendWebhook } from '../../src/adapters/webhook-http/send-webhook.ts';
import { runWebhookDelivery } from '../../src/jobs/webhook-delivery.ts';
import type { UsageEvent } from '../../src/metering/usage-event.ts';
import { ManualClock } from '../../src/primitives/clock.ts';
import { nanoUsd } from '../../src/primitives/money.ts';
import { seededRandom } from '../../src/primitives/random.ts';
import { isWebhookSecret } from '../../src/primitives/sign-webhook.ts';
import { silentLogger } from '../../src/telemetry/logger.ts';
import { mintOperatorScope } from '../../src/tenancy/mint-operator-scope.ts';
import { usageEvent } from '../contracts/usage-events.ts';
import { openTestDatabase, principalOf, type TestDatabase } from '../support/embedded-database.ts';

const operator = mintOperatorScope('test');
const key = Buffer.alloc(32, 9);
const secret = `whsec_${key.toString('base64')}`;

interface Heard {
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
  readonly message: { readonly type: string; readonly timestamp: string; readonly data: Readonly<Record<string, unknown>> };
}

let db: TestDatabase;
let ledger: PostgresUsageLedger;
let endpoint: Server;
let heard: Heard[] = [];
let answers: number[] = [];
let number = 0;

beforeAll(async () => {
  db = await openTestDatabase();
  ledger = new PostgresUsageLedger(db.database);
  endpoint = createServer((request, response) => {
    void textOf(request).then((body) => {
      heard.push({ headers: request.headers, body, message: JSON.parse(body) as Heard['message'] });
      const status = answers.shift() ?? 204;
      response.writeHead(status, status === 302 ? { location: '/elsewhere' } : {}).end();
    });
  });
  await new Promise<void>((resolve) => endpoint.listen(0, '127.0.0.1', resolve));
});
afterAll(async () => {
  endpoint.close();
  await db[Symbol.asyncDispose]();
});
beforeEach(() => {
  heard = [];
  answers = [];
});
afterEach(() => db.database.withClient((client) => client.query('TRUNCATE control.webhook_event, control.budget_spend')));

/** A call that cost so many nano-dollars of a budget of 1,000. */
async function spend(cost: number, changes: Partial<NonNullable<UsageEvent['budgets']>[number]> = {}): Promise<void> {
  const budget = {
    scope: 't:4.acme',
    level: 'tenant',
    period: '2026-01',
    limitNanoUsd: 1_000,
    isHard: false,
    endsAtMs: Date.UTC(2026, 1, 1),
    ...changes,
  };
  await ledger.append([usageEvent(1_000 + number++, { cost: nanoUsd(BigInt(cost)), budgets: [budget] })]);
}

const eventCount = async () =>
  Number((await db.database.withClient((client) => client.query('SELECT count(*) FROM control.webhook_event'))).rows[0]?.count);

/** Runs the delivery until `isDone`, the clock going on as it is told. */
async function deliver(
  isDone: () => boolean,
  options: { readonly clock?: ManualClock; readonly urls?: readonly string[] } = {},
): Promise<void> {
  const { port } = endpoint.address() as AddressInfo;
  const clock = options.clock ?? new ManualClock(Date.UTC(2026, 0, 20));
  const stop = new AbortController();
  const urls = options.urls ?? [`http://127.0.0.1:${port}/hook`];
  const running = runWebhookDelivery(
    {
      endpoints: urls.map((url) => ({ url, secret })),
      outbox: new PostgresWebhookOutbox(db.database),
      send: sendWebhook,
      operator,
      clock,
      random: seededRandom(1),
      logger: silentLogger,
      everyMs: 5,
    },
    stop.signal,
  );
  for (let waited = 0; !isDone() && waited < 20_000; waited += 10) await wait(10);
  // What comes after it would be heard too.
  await wait(100);
  stop.abort();
  await running;
}

describe('a threshold of a budget', () => {
  it('is told at 50, 80 and 100 percent, once each, signed so that the receiver can tell', async () => {
    for (const cost of [300, 250, 200, 100, 400, 50]) await spend(cost);
    await deliver(() => heard.length >= 3);
    expect(new Set(heard.map(({ message }) => message.data['threshold_percent']))).toEqual(new Set([50, 80, 100]));
    expect(heard).toHaveLength(3);
    for (const { headers, body, message } of heard) {
      const signed = [headers['webhook-id'], headers['webhook-timestamp'], body].join('.');
      expect(headers['webhook-signature']).toBe(`v1,${createHmac('sha256', key).update(signed).digest('base64')}`);
      expect(Math.abs(Number(headers['webhook-timestamp']) - Date.UTC(2026, 0, 20) / 1_000)).toBeLessThan(300);
      expect(message).toMatchObject({
        type: 'budget.threshold_reached',
        data: { tenant: 'acme', level: 'tenant', period: '2026-01', limit_usd: '0.000001000', on_exhausted: 'warn' },
      });
    }
    heard = [];
    await spend(10);
    await deliver(() => true);
    expect(heard).toEqual([]);
  });

  it('is told once by a batch that passes several, and once for a replayed one', async () => {
    await spend(900);
    const again = usageEvent(1_000 + number - 1, { cost: nanoUsd(900n) });
    await ledger.append([again]);
    expect(await eventCount()).toBe(2);
  });

  it('is told of each part of a tenant by itself, of a new period anew, and of a limit that was made smaller', async () => {
    await spend(600);
    await spend(600, { scope: 't:4.acme:u:3.ann', level: 'user', member: 'ann' });
    await spend(600, { period: '2026-02' });
    expect(await eventCount()).toBe(3);
    await spend(1, { limitNanoUsd: 700 });
    expect(await eventCount()).toBe(5);
    await deliver(() => heard.length >= 5);
    expect(heard.some(({ message }) => message.data['level'] === 'user' && message.data['member'] === 'ann')).toBe(true);
  });

  it('is seen by no role that serves requests', async () => {
    await spend(600);
    const asTenant = db.database.forTenant(principalOf('acme')).read((q) => sql`SELECT * FROM control.webhook_event`.execute(q));
    await expect(asTenant).rejects.toMatchObject({ sqlState: '42501' });
  });
});

describe('an endpoint', () => {
  it('that fails is asked again after a while, with the same id, until it answers 2xx', async () => {
    answers = [500, 302, 429, 200];
    const clock = new ManualClock(Date.UTC(2026, 0, 20));
    await spend(600);
    for (const seconds of [0, 6, 36, 144]) {
      clock.advance(seconds * 1_000);
      const before = heard.length;
      await deliver(() => heard.length > before, { clock });
      expect(heard.length).toBe(before + 1);
    }
    expect(new Set(heard.map(({ headers }) => headers['webhook-id'])).size).toBe(1);
    clock.advance(86_400_000);
    await deliver(() => true, { clock });
    expect(heard.length).toBe(4);
  });

  it('that is not there keeps nothing from another, which hears it once', async () => {
    const { port } = endpoint.address() as AddressInfo;
    const urls = ['http://127.0.0.1:1/hook', `http://127.0.0.1:${port}/hook`];
    const clock = new ManualClock(Date.UTC(2026, 0, 20));
    await spend(600);
    await deliver(() => heard.length >= 1, { clock, urls });
    for (let attempt = 0; attempt < 14; attempt++) {
      clock.advance(60_000_000);
      await deliver(() => true, { clock, urls });
    }
    expect(heard.length).toBe(1);
    const { rows } = await db.database.withClient((client) => client.query('SELECT attempts, closed_at_ms FROM control.webhook_event'));
    expect(rows).toMatchObject([{ attempts: 14, closed_at_ms: expect.anything() }]);
  });

  it('that is gone hears nothing more of it', async () => {
    answers = [410];
    const clock = new ManualClock(Date.UTC(2026, 0, 20));
    await spend(600);
    await deliver(() => heard.length >= 1, { clock });
    clock.advance(86_400_000);
    await deliver(() => true, { clock });
    expect(heard.length).toBe(1);
  });

  it('is asked by one process at a time', async () => {
    for (let index = 0; index < 40; index++) await spend(600, { scope: `t:4.acme:u:${String(index).length}.${index}` });
    await Promise.all([deliver(() => heard.length >= 40), deliver(() => heard.length >= 40), deliver(() => heard.length >= 40)]);
    expect(heard.length).toBe(40);
  });
});

it('takes keys as the specification wants them', () => {
  expect(isWebhookSecret(secret)).toBe(true);
  for (const wrong of [
    '',
    'whsec_',
    `whsec_${Buffer.alloc(16).toString('base64')}`,
    `whsec_${Buffer.alloc(65).toString('base64')}`,
    key.toString('base64'),
    'whsec_nö base64 but long enough to be one',
  ]) {
    expect(isWebhookSecret(wrong)).toBe(false);
  }
});
