/**
 * The shape of `bulkhead.yaml`. Unknown keys are refused by name; every bound of the process has its name and default here.
 * Units are in the key names. See docs/reference/configuration.md.
 */
import { z } from 'zod';
import { isWebhookSecret } from '../primitives/sign-webhook.ts';

const id = z.string().regex(/^[a-z0-9][a-z0-9._:/-]{0,127}$/i, 'must be 1 to 128 letters, digits or . _ : / -');
const tenantSlug = z.string().regex(/^[a-z0-9][a-z0-9-]{1,62}$/, 'must match ^[a-z0-9][a-z0-9-]{1,62}$');
const positiveInt = z.number().int().min(1);
const httpUrl = z.url({ protocol: /^https?$/ });
const postgresUrl = z.url({ protocol: /^postgres(ql)?$/, error: 'must be a postgres:// URL' });

const limits = z.strictObject({
  requestsPerMinute: positiveInt.optional(),
  /** Input and output together. */
  tokensPerMinute: positiveInt.optional(),
  inputTokensPerMinute: positiveInt.optional(),
  outputTokensPerMinute: positiveInt.optional(),
  concurrency: positiveInt.optional(),
});

const budget = z.strictObject({
  usd: z.number().min(0.000_001).max(9_000_000),
  period: z.enum(['day', 'week', 'month']).default('month'),
  onExhausted: z.enum(['refuse', 'warn']).default('refuse'),
});

const scopePolicy = z.strictObject({ limits: limits.default({}), budget: budget.optional() });

/** A conversation, or one run of an agent. */
const sessionPolicy = z.strictObject({
  limits: limits.default({ concurrency: 8 }),
  usdMax: z.number().min(0.000_001).max(9_000_000).optional(),
  callsMax: positiveInt.optional(),
  durationMaxMs: positiveInt.optional(),
});

const tier = z.strictObject({
  weight: z.number().positive().max(1_000_000).default(1),
  limits: limits.default({}),
  budget: budget.optional(),
  models: z.array(id).optional(),
  /** Each team of a tenant, where the tenant says nothing else about it. */
  perTeam: scopePolicy.optional(),
  /** Each user of a tenant: the token's subject, or whom the request names. */
  perUser: scopePolicy.optional(),
  /** Each session that a request names (`x-session-id`). */
  perSession: sessionPolicy.prefault({}),
});

const signatureAlgorithm = z.enum(['RS256', 'PS256', 'ES256', 'EdDSA']);

const issuer = z
  .strictObject({
    issuer: z.string().min(1).max(512),
    audience: z.string().min(1).max(512),
    jwksUri: httpUrl.optional(),
    publicKeyFile: z.string().min(1).optional(),
    algorithms: z.array(signatureAlgorithm).min(1),
    kind: z.literal('platform').optional(),
    tenant: tenantSlug.optional(),
    claims: z
      .strictObject({
        tenant: z.string().default('tenant_id'),
        tier: z.string().default('tier'),
        user: z.string().default('sub'),
        /** Absent: tokens name no team. */
        team: z.string().min(1).optional(),
      })
      .prefault({}),
    tokenType: z.string().default('at+jwt'),
    maxTokenAgeSeconds: positiveInt.default(3_600),
  })
  .superRefine((value, context) => {
    if ((value.jwksUri === undefined) === (value.publicKeyFile === undefined)) {
      context.addIssue({ code: 'custom', message: 'needs exactly one of jwksUri and publicKeyFile' });
    }
    if ((value.kind === 'platform') === (value.tenant !== undefined)) {
      context.addIssue({ code: 'custom', message: 'needs exactly one of kind: platform and tenant' });
    }
  });

const simulatedProvider = z.strictObject({
  id,
  kind: z.literal('simulated'),
  seed: z.number().int().default(1),
  concurrency: positiveInt.default(8),
  timeToFirstTokenMs: z.number().min(0).default(200),
  tokensPerSecond: z.number().positive().default(50),
  requestsPerMinute: positiveInt.optional(),
  tokensPerMinute: positiveInt.optional(),
  rateLimitRate: z.number().min(0).max(1).default(0),
  errorRate: z.number().min(0).max(1).default(0),
  stallRate: z.number().min(0).max(1).default(0),
});

const httpProvider = z.strictObject({
  id,
  apiKey: z.string().min(1).optional(),
  headersTimeoutMs: positiveInt.default(60_000),
  idleTimeoutMs: positiveInt.default(60_000),
  connectionsMax: positiveInt.default(512),
});

const openaiCompatibleProvider = httpProvider.extend({
  kind: z.literal('openai-compatible'),
  baseUrl: httpUrl,
  /** The field for a per-tenant salt, so that the provider's prompt cache tells no tenant about another; `true`: `prompt_cache_key`. False for servers that refuse what they do not know. */
  promptCacheSalt: z.union([z.boolean(), z.enum(['prompt_cache_key', 'cache_salt'])]).default('prompt_cache_key'),
});

const anthropicProvider = httpProvider.extend({
  kind: z.literal('anthropic'),
  /** Without `/v1`, as Anthropic's own SDKs take it. */
  baseUrl: httpUrl.default('https://api.anthropic.com'),
  /** Mark prompts for Anthropic's cache, in a partition of each tenant's own. */
  promptCache: z.boolean().default(false),
});

/** Where a package asks when nobody says where; null: by its settings. */
const aiSdkBaseUrls: Readonly<Partial<Record<string, string>>> = {
  '@ai-sdk/google': 'https://generativelanguage.googleapis.com/v1beta',
};

const aiSdkProvider = httpProvider
  .extend({
    kind: z.literal('ai-sdk'),
    /** A provider package of the AI SDK; `@ai-sdk/google` and `@ai-sdk/amazon-bedrock` come with Bulkhead. */
    package: z.string().regex(/^(?:@[a-z0-9-]+\/)?[a-z0-9-]+$/, 'must be the name of a package'),
    /** Needed unless the package is `@ai-sdk/google`, or `@ai-sdk/amazon-bedrock` with `settings.region`. */
    baseUrl: httpUrl.optional(),
    /** What else the package's `create…` function takes: region, credentials, names of accounts. */
    settings: z.record(z.string().min(1).max(64), z.union([z.string(), z.number(), z.boolean()])).default({}),
    /** Begin every prompt with a name of the tenant's own, because the provider keeps prompts for the whole account, unasked. Unsaid: where that is so or not known. */
    cachePartition: z.boolean().optional(),
  })
  .transform((value, context) => {
    const { region } = value.settings;
    const isBedrock = value.package === '@ai-sdk/amazon-bedrock' && typeof region === 'string' && /^[a-z0-9-]{1,32}$/.test(region);
    const baseUrl =
      value.baseUrl ?? aiSdkBaseUrls[value.package] ?? (isBedrock ? `https://bedrock-runtime.${region}.amazonaws.com` : undefined);
    if (baseUrl === undefined) context.addIssue({ code: 'custom', path: ['baseUrl'], message: 'is needed for this package' });
    return { ...value, baseUrl: baseUrl ?? '' };
  });

const deployment = z.strictObject({
  provider: id,
  model: z.string().min(1).max(256),
  limits: limits.default({}),
});

const model = z.strictObject({
  id,
  kind: z.enum(['chat', 'embedding']).default('chat'),
  deployments: z.array(deployment).min(1),
  /** Tokens of prompt and answer together; a longer prompt is refused before any upstream call. */
  contextTokens: positiveInt.default(128_000),
  /** The longest answer: what a hard budget sets aside for a request that names no limit of its own. */
  outputTokensMax: positiveInt.default(16_384),
  /** Embedding models only. */
  dimensions: positiveInt.max(3_072).optional(),
  /** Prices of a model the price file does not know, USD per million tokens. */
  price: z.strictObject({ inputUsdPerMillion: z.number().min(0), outputUsdPerMillion: z.number().min(0) }).optional(),
});

/** Where a master key is: exactly one of the three. */
const masterKey = z.strictObject({
  keyFile: z.string().min(1).optional(),
  /** 32 bytes, base64 or hexadecimal; meant for `${NAME}`. */
  key: z.string().min(1).optional(),
  vault: z
    .strictObject({
      url: httpUrl,
      token: z.string().min(1),
      mount: z
        .string()
        .regex(/^[A-Za-z0-9_-]+(\/[A-Za-z0-9_-]+)*$/)
        .max(128)
        .default('transit'),
      keyName: z
        .string()
        .regex(/^[A-Za-z0-9_.-]*[A-Za-z0-9_-]$/)
        .max(128),
      namespace: z.string().min(1).max(256).optional(),
    })
    .optional(),
});
const namesOneKey = { message: 'needs exactly one of keyFile, key and vault' };
const keySources = ({ keyFile, key, vault }: z.output<typeof masterKey>) =>
  [keyFile, key, vault].filter((source) => source !== undefined).length;

/** What wraps the tenants' data keys. Nothing named: a file in the data directory. */
const atRest = masterKey
  .extend({
    /** Keys that wrapped before and still unwrap. */
    previous: z
      .array(masterKey.refine((key) => keySources(key) === 1, namesOneKey))
      .max(16)
      .default([]),
  })
  .refine((key) => keySources(key) <= 1, namesOneKey);

const bounds = z.strictObject({
  bodyBytesMax: positiveInt.default(10 * 1_024 * 1_024),
  /** The file of an upload whose purpose is batch, fine-tune or evals; OpenAI's own limit. */
  uploadBytesMax: positiveInt.default(512 * 1_024 * 1_024),
  /** The file of any other upload, and what can be put into a vector store: a document is read in memory. */
  documentBytesMax: positiveInt.default(50 * 1_024 * 1_024),
  uploadTimeoutMs: positiveInt.default(600_000),
  /** Uploads on disk, all requests together; beyond it 503. One tenant alone gets half. */
  spoolBytesMax: positiveInt.default(4 * 1_024 ** 3),
  /** Bodies in memory, all requests together; beyond it 503. One tenant alone gets half, which must hold its largest body. */
  bodyBytesInFlightMax: positiveInt.default(256 * 1_024 * 1_024),
  headersTimeoutMs: positiveInt.default(10_000),
  requestTimeoutMs: positiveInt.default(60_000),
  streamDurationMaxMs: positiveInt.default(600_000),
  /** A client that reads slower than the model writes is cut off when this much waits for it. */
  streamBacklogBytesMax: positiveInt.default(1_048_576),
  shutdownGraceMs: positiveInt.default(10_000),
  queueRequestsPerTenantMax: positiveInt.default(100),
  queueBytesMax: positiveInt.default(64 * 1_024 * 1_024),
  queueWaitMaxMs: positiveInt.default(30_000),
  reservationLeaseMs: positiveInt.default(30_000),
  /** A command to Valkey that takes longer is given up, and limits are counted in the process until Valkey answers again. */
  valkeyCommandTimeoutMs: positiveInt.default(25),
  credentialCacheEntriesMax: positiveInt.default(50_000),
  credentialVerificationsMax: positiveInt.default(256),
  filesPerTenantMax: positiveInt.default(10_000),
  fileBytesPerTenantMax: positiveInt.default(1_024 * 1_024 * 1_024),
  vectorStoresPerTenantMax: positiveInt.default(100),
  chunksPerFileMax: positiveInt.default(20_000),
  /** Files that are indexed at a time. */
  ingestionConcurrency: positiveInt.max(64).default(2),
  /** Of one tenant, over all processes of a database. */
  ingestionJobsPerTenantMax: positiveInt.default(8),
  parseTimeoutMs: positiveInt.default(20_000),
  parseMemoryMb: positiveInt.default(256),
  /** How long a search waits for its questions to be rewritten by a model; then it searches them as they are. */
  rewriteTimeoutMs: positiveInt.default(3_000),
  /** Between two looks through all tenants for stores of another model than the configured one, while there may be any. */
  reembeddingSurveyMs: positiveInt.default(600_000),
  databaseQueryTimeoutMs: positiveInt.default(30_000),
  /** Vectors and words of searched stores that are kept in memory; 0 keeps none. WebAssembly addresses 4 GiB. */
  residentBytesMax: z
    .number()
    .int()
    .min(0)
    .max(4_000_000_000)
    .default(512 * 1_024 * 1_024),
  /** Of one tenant, and so of one store: a larger one is searched in the database. */
  residentBytesPerTenantMax: positiveInt.default(256 * 1_024 * 1_024),
  /** Stores that are read into memory at once. */
  residentFillsMax: positiveInt.default(2),
  /** Searches that wait for the thread that scans; more are searched in the database. */
  residentSearchesQueuedMax: positiveInt.default(256),
  /** Databases of siloed tenants that are open at once; an embedded one holds about 100 MB and a thread. */
  siloDatabasesOpenMax: positiveInt.default(8),
  /** When the template of embedded tenant databases is made after a start, if it is not there; 40 MB, 2 s of one processor. */
  siloTemplateAfterMs: positiveInt.default(15_000),
  /** A tenant's own database is closed after this long without a request. */
  siloIdleMs: positiveInt.default(60_000),
  /** An archive of a tenant that is imported. */
  archiveBytesMax: positiveInt.default(10 * 1_024 * 1_024 * 1_024),
  /** How long one table may take to be written anew on a server, while a tenant is erased; it is locked meanwhile. */
  tableRewriteMaxMs: positiveInt.default(600_000),
  /** How long a write waits for the end of its tenant's move. */
  tenantMoveWaitMaxMs: positiveInt.default(10_000),
  /** Unwrapped data keys of tenants in memory, about 1 KB each; and for how long before the master key is asked again. */
  dataKeyCacheEntriesMax: positiveInt.default(10_000),
  dataKeyCacheMs: positiveInt.max(3_600_000).default(300_000),
  /** One question to a key service, and how often it is asked again when it does not answer. */
  keyServiceTimeoutMs: positiveInt.default(2_000),
  keyServiceRetriesMax: z.number().int().min(0).max(5).default(2),
});

/** The isolation audit: tenants of its own attack each other through the real edge. */
const audit = z.strictObject({
  /** Between scheduled runs; 0: no schedule. */
  intervalMinutes: z.number().int().min(0).max(1_440).default(15),
  /** UTC: when the nightly full run is due. */
  fullAtUtc: z
    .string()
    .regex(/^([01]\d|2[0-3]):[0-5]\d$/, 'must be HH:MM')
    .default('03:00'),
  /** A scheduled run has a request under way for at most this share of its time. */
  capacityShareMax: z.number().min(0.0001).max(1).default(0.01),
  canaryTenants: z.number().int().min(2).max(8).default(4),
  /** How many of them are made with a database of their own. */
  siloedTenants: z.number().int().min(0).max(4).default(0),
  /** Holds the planted conversation, in full runs; `none`: none is held. Absent: the first chat model. */
  chatModel: z.union([id, z.literal('none')]).optional(),
  durationMaxMinutes: positiveInt.max(110).default(100),
  ingestionWaitMaxMs: positiveInt.default(60_000),
  reportsMax: positiveInt.max(10_000).default(500),
  leakReportDays: positiveInt.max(3_650).default(365),
});

/** A tenant's half of what is in memory, or on disk, must hold the largest it may send, or that one could never pass. */
const checkedBounds = bounds
  .refine(({ bodyBytesInFlightMax, bodyBytesMax }) => bodyBytesInFlightMax >= 2 * Math.max(bodyBytesMax, 2 * 1_024 * 1_024), {
    path: ['bodyBytesInFlightMax'],
    message: 'must be at least twice bodyBytesMax, and 4194304',
  })
  .refine(({ spoolBytesMax, uploadBytesMax }) => spoolBytesMax >= 2 * (uploadBytesMax + 262_144), {
    path: ['spoolBytesMax'],
    message: 'must be at least twice uploadBytesMax plus 524288',
  });

export const configSchema = z.strictObject({
  server: z
    .strictObject({ host: z.string().min(1).default('127.0.0.1'), port: z.number().int().min(0).max(65_535).default(7070) })
    .prefault({}),
  dataDir: z.string().min(1).default('./.bulkhead'),
  database: z
    .strictObject({ url: z.string().optional(), ownerUrl: z.string().optional(), poolSize: positiveInt.max(100).default(10) })
    .prefault({}),
  valkey: z.strictObject({ url: z.url({ protocol: /^(redis|rediss|valkey|valkeys)$/ }).optional() }).prefault({}),
  auth: z
    .strictObject({
      adminToken: z.string().min(16, 'must be at least 16 characters').optional(),
      /** Root of everything that is signed or digested; the replicas of one database share it. */
      secret: z.string().min(32, 'must be at least 32 characters').optional(),
      issuers: z.array(issuer).default([]),
    })
    .prefault({}),
  tiers: z.record(z.string().regex(/^[a-z][a-z0-9-]{0,31}$/), tier).prefault({
    free: { weight: 1, limits: { requestsPerMinute: 60, tokensPerMinute: 40_000, concurrency: 4 } },
    pro: { weight: 4, limits: { requestsPerMinute: 600, tokensPerMinute: 400_000, concurrency: 32 } },
    enterprise: { weight: 8, limits: { requestsPerMinute: 6_000, tokensPerMinute: 4_000_000, concurrency: 128 } },
  }),
  tenants: z
    .array(
      z.strictObject({
        id: tenantSlug,
        name: z.string().min(1).max(256).optional(),
        tier: z.string(),
        isolation: z.enum(['pooled', 'siloed']).default('pooled'),
        /** Of a siloed tenant: the database to live in, instead of one that is made for it. The login that serves. */
        databaseUrl: postgresUrl.optional(),
        /** The login that owns the schema there; without it the operator keeps the schema up to date. */
        databaseOwnerUrl: postgresUrl.optional(),
      }),
    )
    .default([]),
  providers: z
    .array(z.discriminatedUnion('kind', [simulatedProvider, openaiCompatibleProvider, anthropicProvider, aiSdkProvider]))
    .default([]),
  models: z.array(model).default([]),
  /** The embedding model new vector stores use. */
  embedding: z.strictObject({ model: id.default('local-hash-384') }).prefault({}),
  /** Weights of the two arms of hybrid search; the hashed stand-in embedder is held at 0.3 or less. */
  retrieval: z
    .strictObject({
      denseWeight: z.number().min(0).max(1).optional(),
      lexicalWeight: z.number().min(0).max(1).default(1),
      language: z.string().default('english'),
      /** Chunks from which a store gets a shard of its tenant's own and an approximate index, on a server with `database.ownerUrl`; below half it goes back. */
      dedicatedChunksMin: positiveInt.default(20_000),
      dedicatedShardsMax: z.number().int().min(0).max(1_000).default(1_000),
      /** recall@10, measured, below which an index is not used. */
      recallMin: z.number().min(0).max(1).default(0.98),
      recallSampleQueries: positiveInt.max(10_000).default(100),
      /** Share of the questions to an index that are also answered exactly, to go on measuring. */
      shadowExactShare: z.number().min(0).max(1).default(0.005),
      /** Rows of an index that one question may look at before it is answered exactly. */
      approximateScanTuplesMax: positiveInt.default(200_000),
      indexBuildMemoryMb: z.number().int().min(16).max(65_536).default(256),
      indexBuildTimeoutMs: positiveInt.default(3_600_000),
      placementSweepIntervalMs: positiveInt.default(60_000),
      /** Chat model that rewrites questions for searching; without one `rewrite_query` strips them by rule. */
      rewriteModel: id.optional(),
    })
    .prefault({}),
  atRest: atRest.prefault({}),
  /** Who is told of thresholds of budgets, signed as Standard Webhooks describes. */
  webhooks: z
    .array(z.strictObject({ url: httpUrl, secret: z.string().refine(isWebhookSecret, 'must be whsec_ and 24 to 64 bytes as base64') }))
    .max(16)
    .default([]),
  audit: audit.prefault({}),
  logging: z.strictObject({ level: z.enum(['debug', 'info', 'warn', 'error', 'silent']).default('info') }).prefault({}),
  bounds: checkedBounds.prefault({}),
});

/** A validated configuration with every default filled in. */
export type Config = z.output<typeof configSchema>;
export type ProviderConfig = Config['providers'][number];
export type SimulatedProviderConfig = z.output<typeof simulatedProvider>;
export type OpenAiCompatibleProviderConfig = z.output<typeof openaiCompatibleProvider>;
export type AnthropicProviderConfig = z.output<typeof anthropicProvider>;
export type AiSdkProviderConfig = z.output<typeof aiSdkProvider>;
export type TierConfig = z.output<typeof tier>;
export type ModelConfig = z.output<typeof model>;
export type IssuerConfig = z.output<typeof issuer>;
export type MasterKeyConfig = z.output<typeof masterKey>;
export type BoundsConfig = z.output<typeof bounds>;
