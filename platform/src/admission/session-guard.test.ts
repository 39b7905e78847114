import { describe, expect, it } from 'vitest';
import type { BulkheadError } from '../errors/bulkhead-error.ts';
import { ManualClock } from '../primitives/clock.ts';
import { parseTenantId } from '../primitives/ids.ts';
import type { TenantCapabilities } from '../tenancy/capabilities.ts';
import { mintPrincipal } from '../tenancy/mint-principal.ts';
import type { SessionPolicy } from '../tenancy/tenant.ts';
import { openTenantScope } from '../tenancy/tenant-scope.ts';
import { SessionGuard } from './session-guard.ts';

function scopeOf(perSession: SessionPolicy = {}, tenant = 'acme') {
  const id = parseTenantId(tenant);
  if (id === undefined) throw new Error('no tenant id');
  const principal = mintPrincipal({ tenantId: id, kind: 'api-key', user: 'u', keyId: 'k1' });
  const record = { id, name: tenant, tier: 'free', state: 'active', isolation: 'pooled', overrides: {}, createdAtMs: 0 } as const;
  return openTenantScope(
    principal,
    record,
    { name: 'free', weight: 1, limits: {}, perSession },
    { bind: () => ({}) as TenantCapabilities },
  );
}

/** A conversation in which an agent calls one tool a turn. */
class Agent {
  readonly messages: Record<string, unknown>[] = [{ role: 'user', content: 'Find it.' }];
  readonly #guard: SessionGuard;
  readonly #scope: ReturnType<typeof scopeOf>;
  readonly #session: string | null;

  constructor(guard: SessionGuard, scope = scopeOf(), session: string | null = 's1') {
    this.#guard = guard;
    this.#scope = scope;
    this.#session = session;
  }

  does(name: string, args: string, content: string | null = null): this {
    const call = { id: `call_${this.messages.length}`, type: 'function', function: { name, arguments: args } };
    this.messages.push(
      { role: 'assistant', content, tool_calls: [call] },
      { role: 'tool', tool_call_id: call.id, content: 'nothing found' },
    );
    return this;
  }

  /** `fine`, `warned`, or the code of the refusal. */
  asks(): string {
    try {
      const { isLooping } = this.#guard.enter(this.#scope, { user: 'u', session: this.#session ?? undefined }, { messages: this.messages });
      return isLooping ? 'warned' : 'fine';
    } catch (error) {
      return (error as BulkheadError).code;
    }
  }
}

describe('an agent that goes round in circles', () => {
  it('is warned at the fourth same step and refused two steps later, whatever way its arguments are written', () => {
    const agent = new Agent(new SessionGuard(new ManualClock()));
    expect(agent.asks()).toBe('fine');
    const heard = Array.from({ length: 7 }, (_, index) =>
      agent.does('search', index % 2 === 0 ? '{"query":"x","page":1}' : '{ "page": 1, "query": "x" }').asks(),
    );
    expect(heard).toEqual(['fine', 'fine', 'fine', 'warned', 'warned', 'agent_loop_detected', 'agent_loop_detected']);
  });

  it.each([2, 3])('is seen in a cycle of %i that came round three times', (period) => {
    const agent = new Agent(new SessionGuard(new ManualClock()));
    const heard = Array.from({ length: period * 3 + 2 }, (_, index) => agent.does('step', `{"n":${index % period}}`).asks());
    expect(heard.slice(0, period * 3 - 1).every((each) => each === 'fine')).toBe(true);
    expect(heard.slice(period * 3 - 1)).toEqual(['warned', 'warned', 'agent_loop_detected']);
  });

  it('is let go when it does something else', () => {
    const agent = new Agent(new SessionGuard(new ManualClock()));
    for (let count = 0; count < 5; count++) agent.does('search', '{}').asks();
    expect(agent.does('read', '{}').asks()).toBe('fine');
    expect(agent.does('search', '{}').asks()).toBe('fine');
  });

  // Planted: counting a request that is sent again as a step.
  it('is not taken for one when a client sends the same request again', () => {
    const agent = new Agent(new SessionGuard(new ManualClock())).does('search', '{}');
    for (let count = 0; count < 20; count++) expect(agent.asks()).toBe('fine');
  });

  it('does other things with other arguments, texts or tools', () => {
    const agent = new Agent(new SessionGuard(new ManualClock()));
    for (let page = 0; page < 30; page++) expect(agent.does('search', `{"page":${page}}`).asks()).toBe('fine');
    for (let line = 0; line < 30; line++) expect(agent.does('note', '{}', `line ${line}`).asks()).toBe('fine');
  });

  // Planted: sessions by their name alone.
  it('is somebody else in another tenant, user or session, and nobody without a session', () => {
    const guard = new SessionGuard(new ManualClock());
    for (const [scope, session] of [
      [scopeOf(), 's1'],
      [scopeOf({}, 'globex'), 's1'],
      [scopeOf(), 's2'],
    ] as const) {
      const agent = new Agent(guard, scope, session);
      for (let count = 0; count < 3; count++) expect(agent.does('search', '{}').asks()).toBe('fine');
    }
    const nobody = new Agent(guard, scopeOf({ callsMax: 1 }), null);
    for (let count = 0; count < 10; count++) expect(nobody.does('search', '{}').asks()).toBe('fine');
  });

  it.each([
    ['no messages', {}],
    ['messages that are none', { messages: 'x' }],
    ['tool calls that are none', { messages: [{ role: 'assistant', tool_calls: 'x', content: { a: 1 } }] }],
    [
      'arguments of a depth',
      { messages: [{ role: 'assistant', tool_calls: [{ function: { arguments: `${'['.repeat(5_000)}${']'.repeat(5_000)}` } }] }] },
    ],
  ])('is not looked for in %s', (_, body) => {
    const guard = new SessionGuard(new ManualClock());
    for (let count = 0; count < 3; count++) expect(guard.enter(scopeOf(), { user: 'u', session: 's' }, body).isLooping).toBe(false);
  });
});

describe('a session', () => {
  it('makes so many calls, and lasts so long', () => {
    const clock = new ManualClock();
    const guard = new SessionGuard(clock);
    const few = new Agent(guard, scopeOf({ callsMax: 3 }));
    expect([few.asks(), few.asks(), few.asks(), few.asks()]).toEqual(['fine', 'fine', 'fine', 'session_limit_exceeded']);
    const short = new Agent(guard, scopeOf({ durationMaxMs: 60_000 }), 's2');
    expect(short.asks()).toBe('fine');
    clock.advance(60_000);
    expect(short.asks()).toBe('fine');
    clock.advance(1);
    expect(short.asks()).toBe('session_limit_exceeded');
  });

  // Planted: counting it all the same; giving back more than one.
  it('is not charged for a call that was refused elsewhere, nor for one that it refuses itself', () => {
    const guard = new SessionGuard(new ManualClock());
    const scope = scopeOf({ callsMax: 2 });
    const enter = () => guard.enter(scope, { user: 'u', session: 's1' }, {});
    for (let count = 0; count < 5; count++) enter().refused();
    const second = [enter(), enter()][1];
    for (let count = 0; count < 5; count++) expect(enter).toThrow('made 2 calls');
    second?.refused();
    enter();
    expect(enter).toThrow('made 2 calls');
  });

  it('is over after an hour without a request', () => {
    const clock = new ManualClock();
    // The cache takes a start at 0 for none.
    clock.advance(1);
    const agent = new Agent(new SessionGuard(clock), scopeOf({ callsMax: 1 }));
    expect([agent.asks(), agent.asks()]).toEqual(['fine', 'session_limit_exceeded']);
    clock.advance(3_600_001);
    expect(agent.asks()).toBe('fine');
  });
});
