/** Health, metrics, which prices are in force, and the console's files. */
import { readFileSync } from 'node:fs';
import type { IncomingHttpHeaders } from 'node:http';
import type { Answer } from '../gateway/exchange.ts';
import type { OpenRoute, OperatorRoute, Route } from '../gateway/route.ts';
import type { Metrics } from '../telemetry/metrics.ts';

export interface StatusRouteParts {
  readonly metrics: Metrics;
  readonly isOperator: (headers: IncomingHttpHeaders) => boolean;
  /** Undefined when ready, else what is missing. */
  readonly notReady: () => Promise<string | undefined>;
  readonly prices: () => { readonly version: string };
}

export function statusRoutes(parts: StatusRouteParts): readonly Route[] {
  const open = (path: string, handle: OpenRoute['handle']): OpenRoute => ({
    auth: 'none',
    method: 'GET',
    path,
    body: 'none',
    spends: false,
    handle,
  });
  const operator = (path: string, handle: OperatorRoute['handle']): OperatorRoute => ({
    auth: 'operator',
    method: 'GET',
    path: `/admin/v1/${path}`,
    body: 'none',
    spends: false,
    handle,
  });
  return [
    open('/livez', async () => json(200, { status: 'ok' })),
    open('/readyz', () => readiness(parts)),
    open('/metrics', async ({ headers }) => {
      const audience = parts.isOperator(headers) ? 'operator' : 'anybody';
      return text('text/plain; version=0.0.4; charset=utf-8', await parts.metrics.render(audience));
    }),
    operator('prices', async () => json(200, { object: 'price_book', ...parts.prices() })),
    ...consoleRoutes(open),
  ];
}

async function readiness(parts: StatusRouteParts): Promise<Answer> {
  const missing = await parts.notReady();
  return missing === undefined ? json(200, { status: 'ready' }) : json(503, { status: 'not ready', reason: missing });
}

const consoleFiles = [
  { path: '/console', file: 'index.html', contentType: 'text/html; charset=utf-8' },
  { path: '/console/console.css', file: 'console.css', contentType: 'text/css; charset=utf-8' },
  { path: '/console/console.js', file: 'console.js', contentType: 'text/javascript; charset=utf-8' },
];

/** Nothing from elsewhere, no framing, no inline script: what a stored name could do in the console is be shown. */
const consoleHeaders = {
  'content-security-policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'",
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cache-control': 'no-cache',
};

function consoleRoutes(open: (path: string, handle: OpenRoute['handle']) => OpenRoute): readonly OpenRoute[] {
  const folder = new URL('../../../console/app/', import.meta.url);
  return consoleFiles.map(({ path, file, contentType }) =>
    open(path, async () => ({ ...text(contentType, readFileSync(new URL(file, folder), 'utf8')), headers: consoleHeaders })),
  );
}

function json(status: number, body: unknown): Answer {
  return { kind: 'json', status, body };
}

function text(contentType: string, body: string) {
  return { kind: 'bytes', status: 200, contentType, body: Buffer.from(body) } as const;
}
