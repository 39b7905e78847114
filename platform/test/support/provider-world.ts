/** A real Bulkhead in front of a scripted provider, and OpenAI's unchanged SDK in the name of its tenants. */
import OpenAI from 'openai';
import { createRecordingFetch } from '../conformance/recording-fetch.ts';
import { type RunningBulkhead, startBulkhead } from './running-bulkhead.ts';

export interface ProviderWorld extends AsyncDisposable {
  readonly bulkhead: RunningBulkhead;
  /** Posts to the control plane. */
  readonly admin: (path: string, body: unknown) => Promise<Record<string, unknown>>;
  /** Every answer and every event is checked against OpenAI's schema. */
  readonly openai: (tenant?: string) => OpenAI;
  readonly plainOpenai: () => OpenAI;
}

const adminToken = 'admin-token-of-the-provider-tests';
const tenants = ['acme', 'globex'];

/** `config`: providers and models. The tenants are acme and globex, without limits. */
export async function openProviderWorld(config: string): Promise<ProviderWorld> {
  const bulkhead = await startBulkhead({ config: `auth: { adminToken: ${adminToken} }\ntiers: { test: { weight: 1 } }\n${config}` });
  const admin = async (path: string, body: unknown) => {
    const headers = { authorization: `Bearer ${adminToken}`, 'content-type': 'application/json' };
    const sent = await fetch(`${bulkhead.baseUrl}/admin/v1${path}`, { method: 'POST', headers, body: JSON.stringify(body) });
    return (await sent.json()) as Record<string, unknown>;
  };
  const keys = new Map<string, string>();
  for (const id of tenants) {
    await admin('/tenants', { id, tier: 'test' });
    keys.set(id, String((await admin(`/tenants/${id}/keys`, { name: 'k' }))['key']));
  }
  const options = (tenant: string) => ({ baseURL: `${bulkhead.baseUrl}/v1`, apiKey: keys.get(tenant) ?? '', maxRetries: 0 });
  return {
    bulkhead,
    admin,
    openai: (tenant = 'acme') => new OpenAI({ ...options(tenant), fetch: createRecordingFetch().fetch }),
    plainOpenai: () => new OpenAI(options('acme')),
    [Symbol.asyncDispose]: () => bulkhead[Symbol.asyncDispose](),
  };
}
