/** Databases on the real server that `server-setup.ts` started: each test file has its own, copied from a migrated template. */
import { randomBytes } from 'node:crypto';
import { Database } from '../../src/adapters/postgres/database.ts';
import type { KeyRing } from '../../src/encryption/key-ring.ts';
import type { TestDatabase } from './embedded-database.ts';
import { testKeyRing } from './key-ring.ts';

export const testTemplate = 'bulkhead_test_template';

/** The superuser's URL. Throws, with what to do, where there can be no server. */
function serverUrl(): string {
  const { TEST_SERVER_URL: url, TEST_SERVER_PROBLEM: problem } = process.env;
  if (url === undefined) throw new Error(problem ?? 'there is no server: this suite belongs to the project `server`');
  return url;
}

export function urlOf(name: string): string {
  return urlAt(serverUrl(), name);
}

/** Another database, or another login, of the same server. */
export function urlAt(server: string, name: string, login?: string): string {
  const url = new URL(server);
  url.pathname = `/${name}`;
  if (login !== undefined) {
    url.username = login;
    url.password = login;
  }
  return url.href;
}

/** One after the other on one connection, outside any transaction. */
export async function onServer(statements: readonly string[], url = urlOf('postgres')): Promise<void> {
  await using database = openAt(url);
  await database.value.withClient(async (client) => {
    for (const statement of statements) await client.query(statement);
  });
}

export async function openServerDatabase(keyRing: KeyRing = testKeyRing()): Promise<TestDatabase> {
  const name = `test_${randomBytes(8).toString('hex')}`;
  await onServer([`CREATE DATABASE ${name} TEMPLATE ${testTemplate}`]);
  const database = openAt(urlOf(name), keyRing);
  return {
    database: database.value,
    async [Symbol.asyncDispose]() {
      await database[Symbol.asyncDispose]();
      await onServer([`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`]);
    },
  };
}

function openAt(url: string, keyRing?: KeyRing): AsyncDisposable & { readonly value: Database } {
  const value = new Database({ connection: { url }, poolSize: 10, queryTimeoutMs: 30_000, ...(keyRing && { keyRing }) });
  return { value, [Symbol.asyncDispose]: () => value.close() };
}
