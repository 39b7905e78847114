/**
 * bulkhead.yaml + environment -> Config. The only place that reads `process.env` or the configuration file.
 * Every mistake is reported at once, each with its path and reason.
 */
import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { parseDocument } from 'yaml';
import type { z } from 'zod';
import { demoDefaults } from './demo.ts';
import { embeddingDimensions, embeddingDimensionsDefault, lexicalLanguages } from './retrieval-values.ts';
import { type Config, configSchema, type MasterKeyConfig } from './schema.ts';

export interface LoadedConfig {
  readonly config: Config;
  /** No provider is configured: simulated models, demo tenants, loopback only. */
  readonly demo: boolean;
  /** The file that was read, if there was one. */
  readonly file: string | undefined;
}

export interface ConfigSources {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cwd: string;
  /** Named on the command line; must exist. */
  readonly file?: string | undefined;
}

/** All mistakes of a configuration in one message. */
export class ConfigError extends Error {
  readonly mistakes: readonly string[];

  constructor(source: string, mistakes: readonly string[]) {
    const heading = mistakes.length === 1 ? 'has a mistake' : `has ${mistakes.length} mistakes`;
    super(`${source} ${heading}:\n${mistakes.map((mistake) => `  - ${mistake}`).join('\n')}`);
    this.name = 'ConfigError';
    this.mistakes = mistakes;
  }
}

export function systemSources(file?: string): ConfigSources {
  return { env: process.env, cwd: process.cwd(), file };
}

/** Reads, fills in and validates. Throws ConfigError. */
export function loadConfig(sources: ConfigSources): LoadedConfig {
  const { file, text } = readConfigFile(sources);
  const label = file ?? 'the environment';
  const mistakes: string[] = [];
  const written = interpolate(parseYaml(text, label), sources.env, mistakes);
  const demo = !hasEntries(written['providers']);
  const complete = withEnvironment(demo ? withDemo(written) : written, sources.env);
  const parsed = configSchema.safeParse(complete);
  if (!parsed.success) mistakes.push(...parsed.error.issues.flatMap(describeIssue));
  if (parsed.success) mistakes.push(...contradictions(parsed.data, demo));
  if (mistakes.length > 0 || !parsed.success) throw new ConfigError(label, mistakes);
  const base = file === undefined ? sources.cwd : dirname(file);
  return { config: withAbsolutePaths(parsed.data, base, sources), demo, file };
}

function readConfigFile(sources: ConfigSources): { file: string | undefined; text: string } {
  const named = sources.file ?? sources.env['BULKHEAD_CONFIG'];
  const file = resolve(sources.cwd, named ?? 'bulkhead.yaml');
  try {
    return { file, text: readFileSync(file, 'utf8') };
  } catch (cause) {
    if (named === undefined && isMissing(cause)) return { file: undefined, text: '' };
    throw new ConfigError(file, [`cannot be read (${(cause as NodeJS.ErrnoException).code ?? 'unknown error'})`]);
  }
}

function isMissing(cause: unknown): boolean {
  return cause instanceof Error && (cause as NodeJS.ErrnoException).code === 'ENOENT';
}

function parseYaml(text: string, label: string): Record<string, unknown> {
  // `{ url: ${NAME} }` is what people write and is not YAML: braces end a plain scalar. So names travel as plain words.
  const document = parseDocument(text.replaceAll(/\$\{([A-Za-z_][A-Za-z0-9_]*)\}/g, '__env_$1_env__'), {
    uniqueKeys: true,
    maxAliasCount: 100,
  } as Parameters<typeof parseDocument>[1]);
  if (document.errors.length > 0) {
    throw new ConfigError(
      label,
      document.errors.map((error) => error.message.split('\n')[0] ?? 'is not YAML'),
    );
  }
  const value: unknown = document.toJS();
  if (value === null || value === undefined) return {};
  if (typeof value !== 'object' || Array.isArray(value)) throw new ConfigError(label, ['must be a mapping of sections']);
  return value as Record<string, unknown>;
}

/** Replaces `${NAME}`. A value that is nothing but an unset variable counts as absent; an unset variable inside a text is a mistake. */
function interpolate(root: Record<string, unknown>, env: ConfigSources['env'], mistakes: string[]): Record<string, unknown> {
  const visit = (value: unknown, path: string): unknown => {
    if (typeof value === 'string') return interpolateText(value, path, env, mistakes);
    if (Array.isArray(value)) return value.map((item, index) => visit(item, `${path}.${index}`));
    if (typeof value !== 'object' || value === null) return value ?? undefined;
    const entries = Object.entries(value).map(([key, item]) => [key, visit(item, path === '' ? key : `${path}.${key}`)] as const);
    return Object.fromEntries(entries.filter(([, item]) => item !== undefined));
  };
  return visit(root, '') as Record<string, unknown>;
}

function interpolateText(text: string, path: string, env: ConfigSources['env'], mistakes: string[]): string | undefined {
  const whole = /^__env_([A-Za-z0-9_]*?)_env__$/.exec(text);
  if (whole?.[1] !== undefined) return env[whole[1]] || undefined;
  return text.replaceAll(/__env_([A-Za-z0-9_]*?)_env__/g, (_, name: string) => {
    const value = env[name];
    if (value === undefined) mistakes.push(`${path}: the environment variable ${name} is not set`);
    return value ?? '';
  });
}

function hasEntries(value: unknown): boolean {
  return Array.isArray(value) && value.length > 0;
}

function withDemo(written: Record<string, unknown>): Record<string, unknown> {
  return { ...demoDefaults, ...written, providers: demoDefaults.providers, models: demoDefaults.models };
}

/** The environment wins over defaults, and over the file for what the operator types at start. */
function withEnvironment(written: Record<string, unknown>, env: ConfigSources['env']): Record<string, unknown> {
  const section = (name: string) => (written[name] ?? {}) as Record<string, unknown>;
  const port = env['PORT'];
  const server = { ...section('server'), ...(env['HOST'] && { host: env['HOST'] }), ...(port && { port: Number(port) }) };
  const database = { ...(env['DATABASE_URL'] && { url: env['DATABASE_URL'] }), ...section('database') };
  const valkey = { ...(env['VALKEY_URL'] && { url: env['VALKEY_URL'] }), ...section('valkey') };
  const auth = { ...(env['BULKHEAD_ADMIN_TOKEN'] && { adminToken: env['BULKHEAD_ADMIN_TOKEN'] }), ...section('auth') };
  return { ...written, server, database, valkey, auth };
}

function describeIssue(issue: z.core.$ZodIssue): string[] {
  const path = issue.path.map(String).join('.');
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => `${path === '' ? key : `${path}.${key}`}: unknown key`);
  }
  return [`${path === '' ? 'configuration' : path}: ${issue.message}`];
}

/** What is right in each part and wrong as a whole. */
function contradictions(config: Config, demo: boolean): string[] {
  return [
    ...duplicates(config.providers, 'providers'),
    ...duplicates(config.models, 'models'),
    ...duplicates(config.tenants, 'tenants'),
    ...issuerTwins(config),
    ...unknownReferences(config),
    ...embeddingProviderMistakes(config),
    ...siloMistakes(config),
    ...retrievalMistakes(config),
    ...addressMistakes(config, demo),
  ];
}

function duplicates(entries: readonly { readonly id: string }[], section: string): string[] {
  const seen = new Set<string>();
  return entries.flatMap((entry, index) => {
    if (!seen.has(entry.id)) {
      seen.add(entry.id);
      return [];
    }
    return [`${section}.${index}.id: ${entry.id} is named twice`];
  });
}

function issuerTwins(config: Config): string[] {
  const issuers = config.auth.issuers.map((entry) => ({ id: entry.issuer }));
  return duplicates(issuers, 'auth.issuers').map((text) => text.replace('.id:', '.issuer:'));
}

function unknownReferences(config: Config): string[] {
  const providers = new Set([...config.providers.map((provider) => provider.id), 'local']);
  const models = new Set([...config.models.map((model) => model.id), 'local-hash-384']);
  const deployments = config.models.flatMap((model, at) =>
    model.deployments.flatMap((deployment, index) =>
      providers.has(deployment.provider) ? [] : [`models.${at}.deployments.${index}.provider: there is no provider ${deployment.provider}`],
    ),
  );
  const tenants = config.tenants.flatMap((tenant, at) =>
    Object.hasOwn(config.tiers, tenant.tier) ? [] : [`tenants.${at}.tier: there is no tier ${tenant.tier}`],
  );
  const embedding = models.has(config.embedding.model) ? [] : [`embedding.model: there is no model ${config.embedding.model}`];
  const { chatModel } = config.audit;
  const audit =
    chatModel === undefined || chatModel === 'none' || models.has(chatModel) ? [] : [`audit.chatModel: there is no model ${chatModel}`];
  return [...deployments, ...tenants, ...embedding, ...audit];
}

/** Anthropic has no embeddings. */
function embeddingProviderMistakes(config: Config): string[] {
  const withoutEmbeddings = new Set(config.providers.filter(({ kind }) => kind === 'anthropic').map(({ id }) => id));
  return config.models.flatMap(({ kind, deployments }, at) =>
    deployments.flatMap(({ provider }, index) =>
      kind === 'embedding' && withoutEmbeddings.has(provider)
        ? [`models.${at}.deployments.${index}.provider: ${provider} is of kind anthropic, which has no embeddings`]
        : [],
    ),
  );
}

function siloMistakes(config: Config): string[] {
  return config.tenants.flatMap(({ isolation, databaseUrl, databaseOwnerUrl }, at) => [
    ...(databaseUrl !== undefined && isolation !== 'siloed' ? [`tenants.${at}.databaseUrl: needs isolation: siloed`] : []),
    ...(databaseOwnerUrl !== undefined && databaseUrl === undefined ? [`tenants.${at}.databaseOwnerUrl: needs databaseUrl`] : []),
  ]);
}

function retrievalMistakes(config: Config): string[] {
  const { language, rewriteModel } = config.retrieval;
  const rewriter = config.models.find((entry) => entry.id === rewriteModel);
  const at = config.models.findIndex((model) => model.id === config.embedding.model);
  const model = config.models[at];
  return [
    ...(lexicalLanguages.has(language) ? [] : [`retrieval.language: ${language} is none of ${[...lexicalLanguages].join(', ')}`]),
    ...(rewriteModel === undefined || rewriter?.kind === 'chat' ? [] : [`retrieval.rewriteModel: there is no chat model ${rewriteModel}`]),
    ...(model === undefined || model.kind === 'embedding' ? [] : [`embedding.model: ${model.id} is not of kind embedding`]),
    ...(model === undefined || embeddingDimensions.includes(model.dimensions ?? embeddingDimensionsDefault)
      ? []
      : [`models.${at}.dimensions: vectors can have ${embeddingDimensions.join(', ')} dimensions, not ${model.dimensions}`]),
  ];
}

const loopbackHosts = new Set(['127.0.0.1', 'localhost', '::1', '[::1]']);

function addressMistakes(config: Config, demo: boolean): string[] {
  const isPublic = !loopbackHosts.has(config.server.host) && !config.server.host.startsWith('127.');
  if (demo && isPublic) {
    return [
      `server.host: demo mode (no providers configured) listens on loopback only, not on ${config.server.host}; name your providers in bulkhead.yaml to leave demo mode`,
    ];
  }
  if (!demo && config.auth.adminToken === undefined) {
    return ['auth.adminToken: is required once providers are configured (set BULKHEAD_ADMIN_TOKEN, at least 16 characters)'];
  }
  return [];
}

function withAbsolutePaths(config: Config, base: string, sources: ConfigSources): Config {
  const dataDir = sources.env['BULKHEAD_DATA_DIR'];
  const issuers = config.auth.issuers.map((issuer) =>
    issuer.publicKeyFile === undefined ? issuer : { ...issuer, publicKeyFile: resolve(base, issuer.publicKeyFile) },
  );
  const keyAt = <Key extends MasterKeyConfig>(key: Key): Key =>
    key.keyFile === undefined ? key : { ...key, keyFile: resolve(base, key.keyFile) };
  return {
    ...config,
    atRest: { ...keyAt(config.atRest), previous: config.atRest.previous.map(keyAt) },
    dataDir: dataDir === undefined ? resolve(base, config.dataDir) : resolve(sources.cwd, dataDir),
    auth: { ...config.auth, issuers },
  };
}
