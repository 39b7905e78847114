import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ConfigError, loadConfig } from './load.ts';

function load(yaml: string | undefined, env: Record<string, string> = {}) {
  const cwd = mkdtempSync(join(tmpdir(), 'bulkhead-config-'));
  if (yaml !== undefined) writeFileSync(join(cwd, 'bulkhead.yaml'), yaml);
  return { ...loadConfig({ env, cwd }), cwd };
}

function mistakesOf(yaml: string, env: Record<string, string> = {}): readonly string[] {
  try {
    load(yaml, env);
  } catch (error) {
    if (error instanceof ConfigError) return error.mistakes;
    throw error;
  }
  return [];
}

const withProvider = `
auth: { adminToken: 0123456789abcdef }
providers:
  - { id: openai, kind: openai-compatible, baseUrl: https://api.openai.com/v1, apiKey: \${OPENAI_API_KEY} }
models:
  - { id: gpt-4o-mini, deployments: [ { provider: openai, model: gpt-4o-mini, limits: { concurrency: 64 } } ] }
`;

describe('loadConfig', () => {
  it('is in demo mode without a file: simulated models on loopback', () => {
    const { config, demo, cwd } = load(undefined);
    expect(demo).toBe(true);
    expect(config.server).toEqual({ host: '127.0.0.1', port: 7070 });
    expect(config.dataDir).toBe(join(cwd, '.bulkhead'));
    expect(config.models.map((model) => model.id)).toContain('sim-fast');
  });

  it('leaves demo mode when the file names providers', () => {
    expect(load(withProvider, { OPENAI_API_KEY: 'sk-1' }).demo).toBe(false);
  });

  it('knows where Anthropic is, and that it has no embeddings', () => {
    const withModel = (kind: string) => `
auth: { adminToken: 0123456789abcdef }
providers: [ { id: claude, kind: anthropic, apiKey: sk-ant-1 } ]
models: [ { id: m, kind: ${kind}, deployments: [ { provider: claude, model: claude-x } ] } ]
`;
    const [provider] = load(withModel('chat')).config.providers;
    expect(provider).toMatchObject({ baseUrl: 'https://api.anthropic.com', promptCache: false, headersTimeoutMs: 60_000 });
    expect(mistakesOf(withModel('embedding'))).toEqual([
      'models.0.deployments.0.provider: claude is of kind anthropic, which has no embeddings',
    ]);
  });

  it('knows where Google and Amazon are, and asks where others are', () => {
    const withProvider = (rest: string) => `
auth: { adminToken: 0123456789abcdef }
providers: [ { id: p, kind: ai-sdk, ${rest} } ]
models: [ { id: m, deployments: [ { provider: p, model: x } ] } ]
`;
    const baseUrlOf = (rest: string) => (load(withProvider(rest)).config.providers[0] as { readonly baseUrl?: string }).baseUrl;
    expect(baseUrlOf('package: "@ai-sdk/google", apiKey: k')).toBe('https://generativelanguage.googleapis.com/v1beta');
    const amazon = 'package: "@ai-sdk/amazon-bedrock", settings: { region: eu-central-1 }';
    expect(baseUrlOf(amazon)).toBe('https://bedrock-runtime.eu-central-1.amazonaws.com');
    expect(baseUrlOf(`${amazon}, baseUrl: "http://localhost:9"`)).toBe('http://localhost:9');
    for (const rest of [
      'package: "@ai-sdk/mistral"',
      'package: "@ai-sdk/amazon-bedrock"',
      'package: "@ai-sdk/amazon-bedrock", settings: { region: "evil.test/x" }',
    ]) {
      expect(mistakesOf(withProvider(rest))).toEqual([expect.stringContaining('providers.0.baseUrl: is needed for this package')]);
    }
    expect(mistakesOf(withProvider('package: "../../evil"'))).toEqual([expect.stringContaining('must be the name of a package')]);
    expect(mistakesOf(withProvider('package: "@ai-sdk/google", frobnicate: 1'))).toHaveLength(1);
  });

  it('takes PORT, HOST, BULKHEAD_DATA_DIR and the two URLs from the environment', () => {
    const { config, cwd } = load(undefined, {
      PORT: '8081',
      HOST: 'localhost',
      BULKHEAD_DATA_DIR: 'elsewhere',
      DATABASE_URL: 'postgres://db/x',
    });
    expect(config.server).toEqual({ host: 'localhost', port: 8081 });
    expect(config.dataDir).toBe(join(cwd, 'elsewhere'));
    expect(config.database.url).toBe('postgres://db/x');
  });

  it('treats a value that is only an unset variable as absent', () => {
    expect(load(`database: { url: \${NOT_SET} }`).config.database.url).toBeUndefined();
  });

  it('reports every mistake at once with its path and reason', () => {
    const mistakes = mistakesOf('server: { port: 70700, prot: 1 }\ntiers: { free: { weight: -1 } }\ntenants: [ { id: Acme, tier: free } ]');
    expect(mistakes).toHaveLength(4);
    expect(mistakes).toContain('server.prot: unknown key');
    expect(mistakes.some((mistake) => mistake.startsWith('server.port: '))).toBe(true);
    expect(mistakes.some((mistake) => mistake.startsWith('tiers.free.weight: '))).toBe(true);
    expect(mistakes.some((mistake) => mistake.startsWith('tenants.0.id: must match'))).toBe(true);
  });

  it.each([
    ['unset variable inside a text', `dataDir: ./x-\${NOPE}`, 'dataDir: the environment variable NOPE is not set'],
    [
      'provider named twice',
      `${withProvider.replace('models:', '  - { id: openai, kind: simulated }\nmodels:')}`,
      'providers.1.id: openai is named twice',
    ],
    [
      'deployment of an unknown provider',
      withProvider.replace('provider: openai', 'provider: azure'),
      'models.0.deployments.0.provider: there is no provider azure',
    ],
    ['tenant of an unknown tier', 'tenants: [ { id: acme, tier: gold } ]', 'tenants.0.tier: there is no tier gold'],
    [
      'providers without an admin token',
      withProvider.replace(/auth:.*/, ''),
      'auth.adminToken: is required once providers are configured (set BULKHEAD_ADMIN_TOKEN, at least 16 characters)',
    ],
    [
      'issuer with both key sources',
      'auth: { issuers: [ { issuer: a, audience: b, algorithms: [RS256], kind: platform, jwksUri: "https://a/b", publicKeyFile: x } ] }',
      'auth.issuers.0: needs exactly one of jwksUri and publicKeyFile',
    ],
    [
      'issuer of an unsafe algorithm',
      'auth: { issuers: [ { issuer: a, audience: b, algorithms: [HS256], kind: platform, publicKeyFile: x } ] }',
      'auth.issuers.0.algorithms.0: ',
    ],
  ])('refuses: %s', (_, yaml, expected) => {
    expect(mistakesOf(yaml, {}).some((mistake) => mistake.startsWith(expected))).toBe(true);
  });

  it('refuses a public address in demo mode', () => {
    expect(mistakesOf('server: { host: 0.0.0.0 }')[0]).toMatch(/^server.host: demo mode/);
  });

  it('refuses a file that is named and missing', () => {
    expect(() => loadConfig({ env: {}, cwd: '/', file: '/no/such/bulkhead.yaml' })).toThrow(/cannot be read \(ENOENT\)/);
  });
});
