/** The callers of the demo: real requests over HTTP, as the tenant's own product would send them. */
import { setTimeout as wait } from 'node:timers/promises';
import { request } from 'undici';

export interface CallerOptions {
  readonly id: string;
  readonly tier: string;
  readonly apiKey: string;
  readonly baseUrl: string;
  readonly model: string;
}

export type Phase = 'alone' | 'flooded';

/** What one tenant saw in one phase. */
export interface Seen {
  readonly waitsMs: number[];
  readonly totalsMs: number[];
  answered: number;
  refused: number;
}

const pauseMs = 1_100;
/** After a refusal: what it says, and no longer than this. */
const retryMaxMs = 2_000;

export class Caller {
  readonly tenant: string;
  readonly tier: string;
  readonly seen: Record<Phase, Seen> = { alone: emptySeen(), flooded: emptySeen() };
  readonly #options: CallerOptions;
  #phase: Phase = 'alone';

  constructor(options: CallerOptions) {
    this.tenant = options.id;
    this.tier = options.tier;
    this.#options = options;
  }

  begin(phase: Phase): void {
    this.#phase = phase;
  }

  /** One request after the other, with a pause: a person. */
  async askNowAndThen(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.#ask(signal);
      await wait(pauseMs, undefined, { signal }).catch(() => {});
    }
  }

  /** So many requests at once, all the time: a script that went wrong. */
  async flood(atOnce: number, signal: AbortSignal): Promise<void> {
    const one = async () => {
      while (!signal.aborted) await this.#ask(signal);
    };
    await Promise.all(Array.from({ length: atOnce }, one));
  }

  async #ask(signal: AbortSignal): Promise<void> {
    const { baseUrl, apiKey, model } = this.#options;
    const seen = this.seen[this.#phase];
    const body = JSON.stringify({
      model,
      max_tokens: 20,
      messages: [{ role: 'user', content: 'What keeps a ship afloat when one hold is full of water?' }],
    });
    const headers = { authorization: `Bearer ${apiKey}`, 'content-type': 'application/json' };
    const from = performance.now();
    try {
      const answer = await request(`${baseUrl}/v1/chat/completions`, { method: 'POST', headers, body, signal });
      await answer.body.dump();
      if (answer.statusCode === 200) {
        seen.answered++;
        seen.totalsMs.push(performance.now() - from);
        seen.waitsMs.push(Number(answer.headers['x-bulkhead-queue-ms'] ?? 0));
        return;
      }
      seen.refused++;
      const retryAfterMs = Math.min(retryMaxMs, Number(answer.headers['retry-after-ms'] ?? retryMaxMs));
      await wait(retryAfterMs, undefined, { signal });
    } catch {
      if (!signal.aborted) seen.refused++;
    }
  }
}

export interface PoolView {
  readonly capacity: number;
  readonly in_flight: number;
  readonly queued: number;
  readonly utilisation: number | null;
  readonly tenants: readonly {
    readonly tenant: string;
    readonly weight: number;
    readonly queued: number;
    readonly in_flight: number;
    readonly entitled_share: number | null;
    readonly received_share: number;
  }[];
}

/** The pool of a model, as the operator's report has it; undefined when there is none. */
export async function fairnessOf(
  { baseUrl, adminToken }: { readonly baseUrl: string; readonly adminToken: string },
  model: string,
): Promise<PoolView | undefined> {
  const answer = await request(`${baseUrl}/admin/v1/fairness`, { headers: { authorization: `Bearer ${adminToken}` } });
  const { data } = (await answer.body.json()) as { readonly data: readonly (PoolView & { readonly pool: string })[] };
  return data.find(({ pool }) => pool === model) ?? data[0];
}

function emptySeen(): Seen {
  return { waitsMs: [], totalsMs: [], answered: 0, refused: 0 };
}
