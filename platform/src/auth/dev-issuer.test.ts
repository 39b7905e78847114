import { chmodSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { assert } from '../primitives/assert.ts';
import { ManualClock } from '../primitives/clock.ts';
import { parseTenantId } from '../primitives/ids.ts';
import { mintDevelopmentToken, openDevelopmentIssuer } from './dev-issuer.ts';
import { createIssuerRegistry } from './issuer-registry.ts';
import { verifyJwt } from './verify-jwt.ts';

const folders: string[] = [];
afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true });
});
function newDataDir(): string {
  const folder = mkdtempSync(join(tmpdir(), 'bulkhead-issuer-'));
  folders.push(folder);
  return join(folder, 'data');
}

const tenant = parseTenantId('acme');
assert(tenant !== undefined, 'acme is a tenant id');
const clock = new ManualClock();

describe('the development issuer', () => {
  it('mints tokens that its own entry in the registry verifies, for a day at most', async () => {
    const issuer = await openDevelopmentIssuer(newDataDir());
    const registry = createIssuerRegistry([issuer.trust]);
    const token = await mintDevelopmentToken(issuer, { tenant, user: 'ada', tier: 'pro', expiresInSeconds: 86_400, clock });
    expect(await verifyJwt(token, registry, clock)).toEqual({
      tenantId: 'acme',
      subject: 'ada',
      user: 'ada',
      tier: 'pro',
      issuer: 'http://bulkhead.localhost/demo',
      issuedAtMs: clock.nowMs(),
      expiresAtMs: clock.nowMs() + 86_400_000,
    });
    const longer = await mintDevelopmentToken(issuer, { tenant, user: 'ada', expiresInSeconds: 86_401, clock });
    await expect(verifyJwt(longer, registry, clock)).rejects.toMatchObject({ code: 'invalid_token' });
  });

  it('keeps its key, readable by its owner alone', async () => {
    const dataDir = newDataDir();
    const issuer = await openDevelopmentIssuer(dataDir);
    const file = join(dataDir, 'demo-issuer.pem');
    expect(readdirSync(dataDir)).toEqual(['demo-issuer.pem']);
    expect([statSync(dataDir).mode & 0o777, statSync(file).mode & 0o777]).toEqual([0o700, 0o600]);
    chmodSync(file, 0o644);
    const token = await mintDevelopmentToken(issuer, { tenant, user: 'ada', expiresInSeconds: 60, clock });
    const again = await openDevelopmentIssuer(dataDir);
    expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(await verifyJwt(token, createIssuerRegistry([again.trust]), clock)).toMatchObject({ tenantId: 'acme', tier: undefined });
  });

  it('is another one in every installation', async () => {
    const [here, there] = [await openDevelopmentIssuer(newDataDir()), await openDevelopmentIssuer(newDataDir())];
    const token = await mintDevelopmentToken(here, { tenant, user: 'ada', expiresInSeconds: 60, clock });
    await expect(verifyJwt(token, createIssuerRegistry([there.trust]), clock)).rejects.toMatchObject({ code: 'invalid_token' });
  });

  it('does not start on a file that holds no key', async () => {
    const dataDir = newDataDir();
    await openDevelopmentIssuer(dataDir);
    writeFileSync(join(dataDir, 'demo-issuer.pem'), '');
    await expect(openDevelopmentIssuer(dataDir)).rejects.toThrow();
  });
});
