/** What a person sees when the server is ready: where it listens, who may call, and lines that work unchanged. */
import type { App } from '../app.ts';
import type { LoadedConfig } from '../config/load.ts';
import type { OpenedDemo } from './demo-tenants.ts';
import { productVersion } from './version.ts';

export function banner(app: App, loaded: LoadedConfig, demo: OpenedDemo | undefined): string {
  const database = loaded.config.database.url === undefined ? `embedded PostgreSQL in ${loaded.config.dataDir}` : 'PostgreSQL server';
  const lines = [
    '',
    `  Bulkhead ${productVersion()}   node ${process.versions.node} · ${database}`,
    '',
    `  API       ${app.baseUrl}/v1            OpenAI compatible`,
    `  Admin     ${app.baseUrl}/admin/v1      bearer admin token`,
    `  Console   ${app.baseUrl}/console`,
    `  Metrics   ${app.baseUrl}/metrics         with the admin token: per tenant`,
    ...(demo === undefined ? liveLines(loaded) : demoLines(app, loaded, demo)),
    '  Stop: Ctrl-C    Problem: npm run bulkhead -- doctor',
    '',
    '',
  ];
  return lines.join('\n');
}

function liveLines(loaded: LoadedConfig): string[] {
  return [`  Models    ${loaded.config.models.map((model) => model.id).join(', ')}`, ''];
}

function demoLines(app: App, loaded: LoadedConfig, demo: OpenedDemo): string[] {
  const [first, second] = demo.tenants;
  const json = "-H 'content-type: application/json'";
  return [
    '  Mode      DEMO: models are simulated, nothing leaves this machine',
    '',
    ...demo.tenants.map((tenant) => `  ${tenant.id.padEnd(8)} ${tenant.tier.padEnd(11)} ${tenant.apiKey}`),
    '',
    '  Stream an answer as acme:',
    `    curl -N ${app.baseUrl}/v1/chat/completions -H 'authorization: Bearer ${first?.apiKey}' ${json} \\`,
    `      -d '{"model":"sim-fast","stream":true,"messages":[{"role":"user","content":"hello"}]}'`,
    '',
    "  The same question to two tenants, answered from each one's own documents:",
    ...[first, second].flatMap((tenant) => [
      `    curl ${app.baseUrl}/v1/responses -H 'authorization: Bearer ${tenant?.apiKey}' ${json} \\`,
      `      -d '{"model":"sim-fast","input":"How long is the refund period?","tools":[{"type":"file_search","vector_store_ids":["${tenant?.vectorStoreId}"]}]}'`,
    ]),
    '',
    '  What it cost, by tenant:',
    `    curl ${app.baseUrl}/admin/v1/usage -H 'authorization: Bearer ${app.adminToken}'`,
    '',
    `  All of this for scripts: ${loaded.config.dataDir}/quickstart.json`,
    '  Real models: name your providers in bulkhead.yaml (docs/guides/first-provider.md) and start again.',
  ];
}
