import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type RunningBulkhead, startBulkhead } from '../support/running-bulkhead.ts';

const main = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
let bulkhead: RunningBulkhead;
beforeAll(async () => {
  bulkhead = await startBulkhead();
});
afterAll(async () => {
  await bulkhead[Symbol.asyncDispose]();
});

interface Ran {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

function run(args: readonly string[], dataDir = bulkhead.dataDir): Promise<Ran> {
  return new Promise((resolve) => {
    const env = { PATH: process.env['PATH'], BULKHEAD_DATA_DIR: dataDir };
    execFile(process.execPath, [main, ...args], { cwd: dataDir, env }, (error, out, err) => {
      resolve({ code: error === null ? 0 : Number(error.code), out, err });
    });
  });
}

const commands = [
  'serve',
  'tenant create',
  'tenant list',
  'tenant move',
  'tenant placement',
  'tenant suspend',
  'tenant resume',
  'key create',
  'key list',
  'key revoke',
  'token',
  'usage',
  'audit',
  'audit list',
  'audit show',
  'audit verify',
  'deployment list',
  'deployment set',
  'demo noisy',
  'rotate-keys',
  'doctor',
  'migrate',
];

describe('the command line', () => {
  it.each(commands)('%s has help with an example, and --json', async (command) => {
    const { code, out } = await run([...command.split(' '), '--help']);
    expect(code).toBe(0);
    expect(out).toMatch(/Example:\n {2}\$ .*bulkhead/);
    expect(out).toContain('--json');
  });

  it('floods the demo by one tenant and shows that the others wait for none of it', async () => {
    const { code, out } = await run(['demo', 'noisy', '--seconds', '6', '--json']);
    expect(code).toBe(0);
    const shown = JSON.parse(out) as {
      readonly noisy: { readonly tenant: string; readonly answered: number };
      readonly quiet: readonly {
        readonly tenant: string;
        readonly answered: number;
        readonly refused: number;
        readonly waitMaxMs: number;
      }[];
    };
    expect(shown.noisy.tenant).toBe('acme');
    expect(shown.noisy.answered).toBeGreaterThan(20);
    expect(shown.quiet.map(({ tenant }) => tenant)).toEqual(['globex', 'initech']);
    for (const { answered, refused, waitMaxMs } of shown.quiet) {
      expect(answered).toBeGreaterThan(1);
      expect(refused).toBe(0);
      // 100 requests of half a second on 8 slots are six seconds; one slot is free every 60 ms.
      expect(waitMaxMs).toBeLessThan(2_000);
    }
    expect(await run(['demo', 'noisy', '--seconds', '1'])).toMatchObject({ code: 1, err: expect.stringContaining('5 to 300') });
  });

  it('creates, lists, suspends and resumes a tenant on the running server', async () => {
    expect((await run(['tenant', 'create', 'umbrella', '--tier', 'pro', '--json'])).code).toBe(0);
    const listed = JSON.parse((await run(['tenant', 'list', '--json'])).out) as readonly { readonly id: string; readonly tier: string }[];
    expect(listed.find((tenant) => tenant.id === 'umbrella')?.tier).toBe('pro');
    expect((await run(['tenant', 'suspend', 'umbrella'])).out).toContain('umbrella is suspended');
    expect((await run(['tenant', 'resume', 'umbrella'])).out).toContain('umbrella is active');
  });

  it('makes a key that works, shows it once, and revokes it', async () => {
    const created = JSON.parse((await run(['key', 'create', 'acme', '--name', 'cli', '--json'])).out) as {
      readonly id: string;
      readonly key: string;
    };
    const models = () => fetch(`${bulkhead.baseUrl}/v1/models`, { headers: { authorization: `Bearer ${created.key}` } });
    expect((await models()).status).toBe(200);
    const listed = await run(['key', 'list', 'acme']);
    expect(listed.out).toContain(created.id);
    expect(listed.out).not.toContain(created.key);
    expect((await run(['key', 'revoke', 'acme', created.id])).code).toBe(0);
    await expect.poll(async () => (await models()).status, { timeout: 5_000 }).toBe(401);
  });

  it('mints a development token that works', async () => {
    const token = (await run(['token', 'initech', '--user', 'peter'])).out.trim();
    const answer = await fetch(`${bulkhead.baseUrl}/v1/models`, { headers: { authorization: `Bearer ${token}` } });
    expect(answer.status).toBe(200);
  });

  it('shows usage as a table and as JSON', async () => {
    const table = await run(['usage', '--by', 'endpoint']);
    expect(table.out).toMatch(/TENANT +ENDPOINT +REQUESTS/);
    expect(table.out).toContain('ingestion');
    expect(JSON.parse((await run(['usage', '--json'])).out)).toHaveProperty('data');
  });

  it('finds nothing wrong with a running server', async () => {
    const { code, out } = await run(['doctor']);
    expect(out).not.toContain('FAIL');
    expect(code).toBe(0);
  });

  it('names a provider’s package that is not installed, and what to run', async () => {
    const dataDir = mkdtempSync(join(tmpdir(), 'bulkhead-cli-'));
    try {
      const provider = (id: string, name: string) =>
        `{ id: ${id}, kind: ai-sdk, package: "@ai-sdk/${name}", baseUrl: "http://127.0.0.1:9" }`;
      const model = 'models: [ { id: m, deployments: [ { provider: there, model: x } ] } ]';
      const providers = `providers: [ ${provider('there', 'google')}, ${provider('away', 'not-there')} ]`;
      writeFileSync(join(dataDir, 'bulkhead.yaml'), `auth: { adminToken: 0123456789abcdef }\n${providers}\n${model}\n`);
      const { code, out } = await run(['doctor', '--config', join(dataDir, 'bulkhead.yaml')], dataDir);
      expect(code).toBe(1);
      expect(out).toContain('ok   provider there: @ai-sdk/google is there');
      expect(out).toMatch(/FAIL provider away: .*npm install --workspace platform @ai-sdk\/not-there/);
    } finally {
      rmSync(dataDir, { recursive: true, force: true });
    }
  });

  it('works on the data directory itself when no server runs', async () => {
    const dataDir = mkdtempSync(join(tmpdir(), 'bulkhead-cli-'));
    try {
      expect((await run(['tenant', 'create', 'hooli'], dataDir)).out).toContain('created tenant hooli');
      expect((await run(['tenant', 'list'], dataDir)).out).toContain('hooli');
      expect((await run(['migrate'], dataDir)).out).toContain('nothing to do');
    } finally {
      rmSync(dataDir, { recursive: true, force: true });
    }
  });

  it('says what is wrong in a sentence and exits 1, and 2 when used wrongly', async () => {
    const unknown = await run(['tenant', 'suspend', 'nobody']);
    expect(unknown).toMatchObject({ code: 1, out: '' });
    expect(unknown.err).toMatch(/^bulkhead: there is no tenant "nobody"\n$/);
    expect((await run(['tenant', 'create', 'acme'])).err).toContain('acme');
    expect((await run(['no-such-command'])).code).toBe(2);
    writeFileSync(join(bulkhead.dataDir, 'bulkhead.yaml'), 'server: { prot: 1 }\n');
    const broken = await run(['tenant', 'list']);
    rmSync(join(bulkhead.dataDir, 'bulkhead.yaml'));
    expect(broken.code).toBe(1);
    expect(broken.err).toContain('server.prot: unknown key');
  });
});
