/**
 * Demo mode: three tenants with a handful of documents each, made through the same HTTP routes a client uses, and
 * `<dataDir>/quickstart.json` (mode 0600), which is part of the public contract.
 */
import { chmodSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { App } from '../app.ts';
import { mintDevelopmentToken, openDevelopmentIssuer } from '../auth/dev-issuer.ts';
import { demoTenants } from '../config/demo.ts';
import { demoDocuments } from '../config/demo-documents.ts';
import type { Config } from '../config/schema.ts';
import { systemClock } from '../primitives/clock.ts';
import { parseTenantId } from '../primitives/ids.ts';

export interface DemoTenant {
  readonly id: string;
  readonly name: string;
  readonly tier: string;
  readonly apiKey: string;
  readonly jwt: string;
  readonly vectorStoreId: string;
}

export interface OpenedDemo {
  readonly tenants: readonly DemoTenant[];
  /** Stops the refreshing of the tokens in quickstart.json. */
  close(): Promise<void>;
}

interface Quickstart {
  readonly baseUrl: string;
  readonly consoleUrl: string;
  readonly adminToken: string;
  readonly models: readonly { readonly id: string }[];
  readonly tenants: readonly DemoTenant[];
}

const tokenSeconds = 86_400;
const refreshEveryMs = 6 * 3_600_000;

/** Makes what is missing, and writes quickstart.json anew. Keys and documents of an earlier start are kept. */
export async function openDemo(app: App, config: Config): Promise<OpenedDemo> {
  const file = join(config.dataDir, 'quickstart.json');
  const before = readQuickstart(file);
  const kept = new Map((before?.tenants ?? []).map((tenant) => [tenant.id, tenant]));
  const tenants: DemoTenant[] = [];
  for (const tenant of demoTenants) {
    const apiKey = kept.get(tenant.id)?.apiKey ?? (await createTenantWithKey(app, tenant));
    if (apiKey === undefined) continue;
    const vectorStoreId = kept.get(tenant.id)?.vectorStoreId ?? (await uploadDocuments(app, tenant.id, apiKey));
    tenants.push({ ...tenant, apiKey, vectorStoreId, jwt: await tokenFor(config, tenant.id) });
  }
  const write = (current: readonly DemoTenant[]) => writeQuickstart(file, quickstartOf(app, config, current));
  write(tenants);
  const refresh = setInterval(() => void refreshTokens(config, tenants).then(write), refreshEveryMs);
  refresh.unref();
  return { tenants, close: async () => clearInterval(refresh) };
}

async function refreshTokens(config: Config, tenants: readonly DemoTenant[]): Promise<readonly DemoTenant[]> {
  return Promise.all(tenants.map(async (tenant) => ({ ...tenant, jwt: await tokenFor(config, tenant.id) })));
}

function quickstartOf(app: App, config: Config, tenants: readonly DemoTenant[]): Quickstart {
  return {
    baseUrl: app.baseUrl,
    consoleUrl: `${app.baseUrl}/console`,
    adminToken: app.adminToken,
    models: config.models.map((model) => ({ id: model.id })),
    tenants,
  };
}

function readQuickstart(file: string): Quickstart | undefined {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as Quickstart;
  } catch {
    // First start, or a file somebody broke: everything in it can be made again.
    return undefined;
  }
}

function writeQuickstart(file: string, content: Quickstart): void {
  const draft = `${file}.${process.pid}`;
  writeFileSync(draft, `${JSON.stringify(content, null, 2)}\n`, { mode: 0o600 });
  chmodSync(draft, 0o600);
  renameSync(draft, file);
}

async function tokenFor(config: Config, tenant: string): Promise<string> {
  const issuer = await openDevelopmentIssuer(config.dataDir);
  const tenantId = parseTenantId(tenant);
  if (tenantId === undefined) throw new Error('a demo tenant has an impossible id');
  return mintDevelopmentToken(issuer, { tenant: tenantId, user: 'developer', expiresInSeconds: tokenSeconds, clock: systemClock });
}

async function createTenantWithKey(
  app: App,
  tenant: { readonly id: string; readonly name: string; readonly tier: string },
): Promise<string | undefined> {
  const headers = { authorization: `Bearer ${app.adminToken}` };
  const exists = await app.inject({ method: 'GET', path: `/admin/v1/tenants/${tenant.id}`, headers });
  if (exists.status === 404) {
    const created = await app.inject({ method: 'POST', path: '/admin/v1/tenants', headers, body: tenant });
    // Erased: an id is never given again.
    if (created.status === 422) return undefined;
    await expectOk(Promise.resolve(created));
  }
  const key = await expectOk(
    app.inject({ method: 'POST', path: `/admin/v1/tenants/${tenant.id}/keys`, headers, body: { name: 'quickstart' } }),
  );
  return String(key['key']);
}

async function uploadDocuments(app: App, tenant: string, apiKey: string): Promise<string> {
  const headers = { authorization: `Bearer ${apiKey}` };
  const fileIds: string[] = [];
  for (const document of demoDocuments[tenant] ?? []) {
    const form = multipart(document);
    const file = await expectOk(
      app.inject({ method: 'POST', path: '/v1/files', headers: { ...headers, 'content-type': form.contentType }, body: form.body }),
    );
    fileIds.push(String(file['id']));
  }
  const store = await expectOk(
    app.inject({ method: 'POST', path: '/v1/vector_stores', headers, body: { name: 'Handbook', file_ids: fileIds } }),
  );
  return String(store['id']);
}

function multipart(document: { readonly filename: string; readonly text: string }) {
  const boundary = 'bulkhead-demo-document';
  const body = [
    `--${boundary}`,
    'content-disposition: form-data; name="purpose"',
    '',
    'assistants',
    `--${boundary}`,
    `content-disposition: form-data; name="file"; filename="${document.filename}"`,
    'content-type: text/markdown',
    '',
    document.text,
    `--${boundary}--`,
    '',
  ].join('\r\n');
  return { contentType: `multipart/form-data; boundary=${boundary}`, body: Buffer.from(body) };
}

async function expectOk(answer: Promise<{ readonly status: number; readonly body: string }>): Promise<Record<string, unknown>> {
  const { status, body } = await answer;
  if (status >= 400) throw new Error(`setting up demo mode failed with status ${status}`);
  return JSON.parse(body) as Record<string, unknown>;
}
