/**
 * How a command reaches the control plane: the running server over HTTP when there is one, else the same routes in this process on the
 * data directory. One API, two transports.
 */
import type { Command } from 'commander';
import { request } from 'undici';
import { openApp } from '../app.ts';
import { loadConfig, systemSources } from '../config/load.ts';
import { silentLogger } from '../telemetry/logger.ts';
import { CommandError } from './command-error.ts';
import { findRunningServer } from './running-server.ts';

export interface AdminClient extends AsyncDisposable {
  /** Resolves with the parsed answer; throws CommandError with the server's own message on an error status. */
  call(method: 'GET' | 'POST' | 'DELETE', path: string, body?: unknown): Promise<Record<string, unknown>>;
}

export interface Answered {
  readonly status: number;
  readonly body: string;
}

/** Opens the client for the configuration the command line names. */
export async function openAdminClient(command: Command): Promise<AdminClient> {
  const file = command.optsWithGlobals<{ config?: string }>().config;
  const loaded = loadConfig(systemSources(file));
  const running = findRunningServer(loaded.config.dataDir);
  if (running !== undefined) {
    const headers = { authorization: `Bearer ${running.adminToken}` };
    return clientOf(
      (method, path, body) => overHttp(running.baseUrl, headers, { method, path, body }),
      async () => {},
    );
  }
  const app = await openApp({ loaded, logger: silentLogger, listen: false });
  const headers = { authorization: `Bearer ${app.adminToken}` };
  const inProcess = (method: string, path: string, body: unknown) => app.inject({ method, path, headers, body });
  return clientOf(inProcess, () => app.close());
}

function clientOf(send: (method: string, path: string, body: unknown) => Promise<Answered>, close: () => Promise<void>): AdminClient {
  return {
    async call(method, path, body) {
      const answer = await send(method, path, body);
      const parsed = parseAnswer(answer);
      if (answer.status >= 400) throw new CommandError(messageOf(parsed, answer.status));
      return parsed;
    },
    [Symbol.asyncDispose]: close,
  };
}

async function overHttp(
  baseUrl: string,
  headers: Record<string, string>,
  call: { method: string; path: string; body: unknown },
): Promise<Answered> {
  const sent = call.body === undefined ? {} : { body: JSON.stringify(call.body) };
  const contentType = call.body === undefined ? {} : { 'content-type': 'application/json' };
  const answer = await request(baseUrl + call.path, { method: call.method as 'GET', headers: { ...headers, ...contentType }, ...sent });
  return { status: answer.statusCode, body: await answer.body.text() };
}

function parseAnswer(answer: Answered): Record<string, unknown> {
  try {
    return JSON.parse(answer.body) as Record<string, unknown>;
  } catch {
    throw new CommandError(`the server answered ${answer.status} with something that is not JSON`);
  }
}

function messageOf(parsed: Record<string, unknown>, status: number): string {
  const error = parsed['error'] as { readonly message?: string; readonly param?: string | null } | undefined;
  if (error?.message === undefined) return `the server answered ${status}`;
  return error.param ? `${error.param}: ${error.message}` : error.message;
}
