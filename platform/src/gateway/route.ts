/**
 * The route table's row. Every route declares who may call it, whether it touches tenant data and whether it can spend; tests and
 * the audit enumerate routes from the table, so a route that is not declared does not exist.
 */
import type { Answer, Exchange, TenantExchange } from './exchange.ts';

interface RouteFacts {
  readonly method: 'GET' | 'POST' | 'DELETE';
  /** Path with `:name` parameters, for example `/v1/files/:fileId`. */
  readonly path: string;
  /** `none` refuses a body; `optional-json` takes an absent one as `{}`. */
  readonly body: 'none' | 'json' | 'optional-json' | 'multipart';
  /** Can cost the tenant tokens or money: must pass admission. */
  readonly spends: boolean;
  /** Its parameters may hold `%2F`: names that others chose, such as `openai/gpt-4o`. Everywhere else an encoded slash is refused. */
  readonly slashInParams?: boolean;
}

export interface TenantRoute extends RouteFacts {
  readonly auth: 'tenant';
  handle(exchange: TenantExchange): Promise<Answer>;
}

export interface OperatorRoute extends RouteFacts {
  readonly auth: 'operator';
  handle(exchange: Exchange): Promise<Answer>;
}

export interface OpenRoute extends RouteFacts {
  readonly auth: 'none';
  handle(exchange: Exchange): Promise<Answer>;
}

export type Route = TenantRoute | OperatorRoute | OpenRoute;
