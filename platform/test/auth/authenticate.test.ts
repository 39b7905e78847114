/** The door as requests meet it: which credential counts, what a request may not say, what is remembered and for how long. */
import { beforeEach, describe, expect, it } from 'vitest';
import { tenantHeaders } from '../../src/auth/credentials.ts';
import { followDirectory } from '../../src/auth/directory-follower.ts';
import { BulkheadError } from '../../src/errors/bulkhead-error.ts';
import { silentLogger } from '../../src/telemetry/logger.ts';
import { TenantScope } from '../../src/tenancy/tenant-scope.ts';
import { tenantId } from '../support/embedded-database.ts';
import {
  acmeToken,
  follow,
  issueKey,
  openWorld,
  operator,
  outcomeOf,
  platformToken,
  requestWith,
  setState,
  unknownKey,
  verdictOn,
  type World,
} from './identity-world.ts';

let world: World;
let key: string;
let keyId: string;
beforeEach(async () => {
  world = await openWorld();
  const issued = await issueKey(world);
  ({ key } = issued);
  keyId = issued.record.id;
});
const outcome = (credential: string | undefined, extra: readonly string[] = [], query = '') => outcomeOf(world, credential, extra, query);

describe('the credential of a request', () => {
  it('comes in any of three headers, the scheme in any case', async () => {
    for (const header of [
      ['Authorization', `Bearer ${key}`],
      ['authorization', `bEaReR   ${key}`],
      ['X-Api-Key', key],
      ['api-key', key],
    ]) {
      expect(await outcome(undefined, header)).toBe('admitted: acme');
    }
    expect(await outcome(undefined, ['x-api-key', await acmeToken(world.clock)])).toBe('admitted: acme');
  });

  it('is the only one, or it is refused, even when all are good and the same', async () => {
    const twice = [
      ['authorization', `Bearer ${key}`, 'Authorization', `Bearer ${key}`],
      ['authorization', `Bearer ${key}`, 'x-api-key', key],
      ['x-api-key', key, 'X-API-Key', key],
      ['x-api-key', key, 'api-key', key],
      ['authorization', '', 'api-key', key],
    ];
    for (const headers of twice) expect(await outcome(undefined, headers)).toBe('duplicate_credentials');
    expect(world.directory.lookups).toBe(0);
  });

  it('alone chooses the tenant: headers and parameters that name one are refused, whatever they say', async () => {
    for (const name of tenantHeaders) {
      for (const value of ['globex', 'acme', '']) expect(await outcome(key, [name.toUpperCase(), value])).toBe('tenant_not_selectable');
    }
    for (const name of ['tenant', 'tenant_id', 'tenantId', 'TENANT_ID', 'x-tenant-id']) {
      expect(await verdictOn(world, key, [], `limit=1&${name}=acme`)).toMatchObject({
        refused: 'tenant_not_selectable',
        shown: { status: 400, param: name },
      });
    }
  });

  it('is not touched by the headers OpenAI’s SDKs send by themselves', async () => {
    const openai = ['OpenAI-Organization', 'globex', 'OpenAI-Project', 'globex', 'x-client-request-id', 'globex'];
    expect(await outcome(key, openai)).toBe('admitted: acme');
  });
});

describe('what is shown of a tenant', () => {
  it('suspended: 403 to who holds a good credential, nothing to others', async () => {
    await setState(world, 'acme', 'suspended');
    const token = await platformToken(world.clock);
    for (const credential of [key, token]) {
      expect(await verdictOn(world, credential)).toMatchObject({
        refused: 'tenant_suspended',
        shown: { status: 403, type: 'permission_error' },
      });
    }
    const unknown = await verdictOn(world, unknownKey());
    expect(unknown).toMatchObject({ refused: 'invalid_api_key' });
    await setState(world, 'acme', 'active');
    await follow(world);
    expect(await outcome(key)).toBe('admitted: acme');
  });

  it('deleting: exactly what a key or a token for nobody gets', async () => {
    await setState(world, 'acme', 'deleting');
    expect(await verdictOn(world, key)).toEqual(await verdictOn(world, unknownKey()));
    const nobody = await platformToken(world.clock, { claims: { tenant_id: 'nobody' } });
    expect(await verdictOn(world, await platformToken(world.clock))).toEqual(await verdictOn(world, nobody));
  });

  it('a tier the operator took away is said to be that, since the credential is good', async () => {
    await world.directory.update(operator, tenantId('acme'), { tier: 'gone' });
    expect(await verdictOn(world, key)).toMatchObject({ refused: 'permission_denied', shown: { status: 403 } });
  });
});

describe('a credential seen lately', () => {
  it('gives the same scope at once, without a look-up or a promise', async () => {
    for (const credential of [key, await platformToken(world.clock)]) {
      const scope = await world.authenticator.authenticate(requestWith(credential));
      const { lookups } = world.directory;
      const again = world.authenticator.authenticate(requestWith(credential));
      expect(TenantScope.is(again)).toBe(true);
      expect(again).toBe(scope);
      expect(world.directory.lookups).toBe(lookups);
    }
  });

  it('is looked up again after 30 seconds', async () => {
    await outcome(key);
    const { lookups } = world.directory;
    world.clock.advance(29_999);
    await outcome(key);
    expect(world.directory.lookups).toBe(lookups);
    world.clock.advance(1);
    await outcome(key);
    expect(world.directory.lookups).toBeGreaterThan(lookups);
  });

  it('is not admitted beyond its own end, which is sharper than 30 seconds', async () => {
    const short = await issueKey(world, { expiresAtMs: world.clock.nowMs() + 10_000 });
    expect(await outcome(short.key)).toBe('admitted: acme');
    world.clock.advance(9_999);
    expect(await outcome(short.key)).toBe('admitted: acme');
    world.clock.advance(1);
    expect(await outcome(short.key)).toBe('invalid_api_key');
  });

  it('is verified once for all who come together', async () => {
    expect(await Promise.all(Array.from({ length: 100 }, () => outcome(key)))).toEqual(Array.from({ length: 100 }, () => 'admitted: acme'));
    // The key and its tenant.
    expect(world.directory.lookups).toBe(2);
  });

  it('is admitted again once a refusal is five seconds old, or anything changed', async () => {
    await setState(world, 'acme', 'suspended');
    expect(await outcome(key)).toBe('tenant_suspended');
    await setState(world, 'acme', 'active');
    const { lookups } = world.directory;
    world.clock.advance(4_999);
    expect(await outcome(key)).toBe('tenant_suspended');
    expect(world.directory.lookups).toBe(lookups);
    world.clock.advance(1);
    expect(await outcome(key)).toBe('admitted: acme');
    await setState(world, 'acme', 'suspended');
    await follow(world);
    expect(await outcome(key)).toBe('tenant_suspended');
  });

  it('is refused as soon as a change of its tenant is known, and others keep theirs', async () => {
    const other = await issueKey(world, { tenant: 'globex' });
    await outcome(key);
    await outcome(other.key);
    await world.directory.revokeApiKey(operator, tenantId('acme'), keyId);
    world.authenticator.apply({ sequence: 9, kind: 'api-key', tenantId: tenantId('acme'), subjectId: keyId });
    const { lookups } = world.directory;
    expect(await outcome(other.key)).toBe('admitted: globex');
    expect(world.directory.lookups).toBe(lookups);
    expect(await outcome(key)).toBe('invalid_api_key');
  });

  it('is not kept when anything changed while it was verified', async () => {
    world.directory.duringLookup = async () => {
      world.directory.duringLookup = async () => {};
      await world.directory.revokeApiKey(operator, tenantId('acme'), keyId);
      await follow(world);
    };
    expect(await outcome(key)).toBe('admitted: acme');
    expect(await outcome(key)).toBe('invalid_api_key');
  });

  it('neither is its refusal', async () => {
    const token = await platformToken(world.clock, { claims: { tenant_id: 'late' } });
    world.directory.duringLookup = async () => {
      if ((await world.directory.changesSince(0)).some((change) => change.tenantId === tenantId('late'))) return;
      // The token was already found to name nobody.
      if (world.directory.lookups < 2) return;
      await world.directory.create(operator, { id: tenantId('late'), name: 'late', tier: 'free', isolation: 'pooled', overrides: {} });
      await follow(world);
    };
    expect(await outcome(token)).toBe('invalid_token');
    expect(await outcome(token)).toBe('admitted: late');
  });

  it('is forgotten with all others when trust is lost', async () => {
    await outcome(key);
    const { lookups } = world.directory;
    world.authenticator.forgetAll();
    await outcome(key);
    expect(world.directory.lookups).toBe(lookups + 2);
  });

  it('is refused at once in the process that revoked it', async () => {
    const follower = await followDirectory({
      directory: world.directory,
      onChange: (change) => world.authenticator.apply(change),
      onLost: () => world.authenticator.forgetAll(),
      clock: world.clock,
      logger: silentLogger,
    });
    await outcome(key);
    await world.directory.revokeApiKey(operator, tenantId('acme'), keyId);
    expect(await outcome(key)).toBe('admitted: acme');
    await follower.catchUp();
    expect(await outcome(key)).toBe('invalid_api_key');
    await follower.close();
  });
});

describe('failures that are not refusals', () => {
  it('are passed on and not remembered', async () => {
    world.directory.duringLookup = async () => {
      throw new BulkheadError('database_unavailable', 'The database is away.');
    };
    expect(await outcome(key)).toBe('database_unavailable');
    world.directory.duringLookup = async () => {};
    expect(await outcome(key)).toBe('admitted: acme');
  });

  it('new credentials beyond the bound are turned away, and known ones are not', async () => {
    world = await openWorld({ verificationsMax: 2 });
    const known = await issueKey(world);
    await outcome(known.key);
    let release = () => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    world.directory.duringLookup = () => held;
    const strangers = [unknownKey(), unknownKey()];
    const waiting = strangers.map((stranger) => outcome(stranger));
    expect(await verdictOn(world, unknownKey())).toMatchObject({
      refused: 'capacity_unavailable',
      shown: { status: 503, rest: { retryAfterMs: 1_000 } },
    });
    expect(await outcome(known.key)).toBe('admitted: acme');
    // Who asks for the same as one under way needs no place.
    const joined = outcome(strangers[0]);
    release();
    expect(await Promise.all([...waiting, joined])).toEqual(['invalid_api_key', 'invalid_api_key', 'invalid_api_key']);
    const late = await issueKey(world);
    expect(await outcome(late.key)).toBe('admitted: acme');
  });
});
