// The swc visitor that dependency-cruiser walks with does not know `using` (@swc/core 1.16.22); a declaration is a declaration.
const { Visitor } = require('@swc/core/Visitor.js');
const visitStatement = Visitor.prototype.visitStatement;
Visitor.prototype.visitStatement = function visitStatementOrUsing(statement) {
  if (statement.type !== 'UsingDeclaration') return visitStatement.call(this, statement);
  statement.decls = this.visitVariableDeclarators(statement.decls);
  return statement;
};

// Who may import whom. The law is DESIGN's: primitives, errors < config, telemetry, tenancy < stages and rag (never each other)
// < request-path, audit < gateway, admin, jobs < app, cli. Adapters import ports and value types, never each other, never upward.
const src = '^platform/src/';
const stages = 'auth|guard|memory|admission|scheduler|inference|metering|rag';
const folder = (names) => `${src}(${names})/`;

/** An external package has one home. */
const home = (name, packages, homes) => ({
  name: `home-of-${name}`,
  severity: 'error',
  comment: `${packages} is used only in ${homes}`,
  from: { path: src, pathNot: `${src}(${homes})` },
  to: { path: `node_modules/(${packages})(/|$)` },
});

module.exports = {
  forbidden: [
    { name: 'no-cycles', severity: 'error', from: { path: src }, to: { circular: true } },
    { name: 'no-unresolved', severity: 'error', from: { path: src }, to: { couldNotResolve: true } },
    {
      name: 'primitives-and-errors-import-nothing-above',
      severity: 'error',
      from: { path: folder('primitives|errors') },
      to: { path: src, pathNot: folder('primitives|errors') },
    },
    {
      name: 'foundations-import-only-below',
      severity: 'error',
      from: { path: folder('config|telemetry|tenancy') },
      to: { path: src, pathNot: folder('primitives|errors|config|telemetry|tenancy') },
    },
    {
      name: 'encryption-imports-only-below',
      severity: 'error',
      from: { path: folder('encryption') },
      to: { path: src, pathNot: folder('primitives|errors|config|telemetry|tenancy|encryption') },
    },
    ...stages.split('|').map((stage) => ({
      name: `stage-${stage}-imports-no-other-stage`,
      severity: 'error',
      from: { path: folder(stage) },
      to: { path: src, pathNot: folder(`primitives|errors|config|telemetry|tenancy|${stage}`) },
    })),
    {
      name: 'upstream-imports-only-below',
      severity: 'error',
      comment:
        'HTTP to model providers, shared by the adapters of the Provider port: beside primitives and errors only the port and what its bodies are',
      from: { path: folder('upstream') },
      to: { path: src, pathNot: `${folder('primitives|errors|upstream')}|${src}inference/(provider|embedding-input)[.]ts` },
    },
    {
      name: 'only-adapters-call-upstream',
      severity: 'error',
      from: { path: src, pathNot: folder('adapters|upstream') },
      to: { path: folder('upstream') },
    },
    {
      name: 'adapters-import-no-other-adapter',
      severity: 'error',
      from: { path: `${src}adapters/([^/]+)/` },
      to: { path: `${src}adapters/`, pathNot: `${src}adapters/$1/` },
    },
    {
      name: 'adapters-never-import-upward',
      severity: 'error',
      from: { path: folder('adapters') },
      to: { path: folder('request-path|audit|gateway|admin|jobs|cli') },
    },
    {
      name: 'request-path-and-audit-import-only-below',
      severity: 'error',
      from: { path: folder('request-path|audit') },
      to: { path: folder('gateway|admin|jobs|cli|adapters') },
    },
    {
      name: 'surfaces-do-not-choose-adapters',
      severity: 'error',
      from: { path: folder('gateway|admin|jobs') },
      to: { path: folder('adapters|cli') },
    },
    {
      name: 'only-app-and-cli-compose',
      severity: 'error',
      from: { path: src, pathNot: `${src}(app|main|index)[.]ts|${src}app/|${folder('cli')}` },
      to: { path: `${src}app[.]ts|${src}app/` },
    },
    {
      name: 'principals-are-minted-by-authentication',
      severity: 'error',
      comment: 'mint-principal is the only way to an identity',
      from: { path: src, pathNot: `${folder('auth|jobs')}|[.]test[.]ts$` },
      to: { path: `${src}tenancy/mint-principal[.]ts` },
    },
    {
      name: 'operators-are-minted-by-surfaces',
      severity: 'error',
      from: { path: src, pathNot: `${folder('admin|jobs|cli')}|${src}app|[.]test[.]ts$` },
      to: { path: `${src}tenancy/mint-operator-scope[.]ts` },
    },
    home('database', 'pg|kysely|@electric-sql', 'adapters/postgres/'),
    home('jwt', 'jose', 'auth/|cli/|app/'),
    home('http-client', 'undici', 'adapters/|upstream/|auth/|cli/'),
    home('ai-sdk', '@ai-sdk', 'adapters/ai-sdk/'),
    home('event-stream', 'eventsource-parser', 'upstream/'),
    home('schema', 'zod', 'config/|gateway/|admin/'),
    home('yaml', 'yaml', 'config/'),
    home('log', 'pino', 'telemetry/'),
    home('metrics', 'prom-client', 'telemetry/'),
    home('command-line', 'commander', 'cli/'),
    home('valkey', '@redis', 'adapters/valkey/'),
    home('documents', 'unpdf|mammoth|csv-parse|parse5', 'rag/|adapters/documents/'),
    home('tokenizer', 'gpt-tokenizer', 'primitives/'),
  ],
  options: {
    parser: 'swc',
    doNotFollow: { path: 'node_modules' },
    exclude: { path: '/planted/' },
    enhancedResolveOptions: {
      extensions: ['.ts', '.mts', '.js', '.mjs', '.json'],
      conditionNames: ['import', 'node', 'default'],
      exportsFields: ['exports'],
    },
    tsPreCompilationDeps: true,
  },
};
