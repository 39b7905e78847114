/**
 * Wrong code, one fault each, with the check that must see it. A rule whose fault passes is switched off without anybody noticing.
 * The faults are text here and become files in a temporary project, so that no other check trips over them.
 */
export interface PlantedFault {
  readonly fault: string;
  readonly tool: 'boundaries' | 'format and syntax' | 'promises and types' | 'types';
  /** What the tool's complaint must contain. */
  readonly complaint: RegExp;
  readonly files: Readonly<Record<string, string>>;
}

const value = 'export const value = 1;\n';
const importing = (path: string) => `import { value } from '${path}';\n\nexport const copy = value;\n`;

export const plantedFaults: readonly PlantedFault[] = [
  {
    fault: 'a stage imports another stage',
    tool: 'boundaries',
    complaint: /stage-auth-imports-no-other-stage/,
    files: { 'platform/src/auth/a.ts': importing('../scheduler/b.ts'), 'platform/src/scheduler/b.ts': value },
  },
  {
    fault: 'a foundation imports a stage',
    tool: 'boundaries',
    complaint: /foundations-import-only-below/,
    files: { 'platform/src/tenancy/a.ts': importing('../metering/b.ts'), 'platform/src/metering/b.ts': value },
  },
  {
    fault: 'encryption imports an adapter',
    tool: 'boundaries',
    complaint: /encryption-imports-only-below/,
    files: { 'platform/src/encryption/a.ts': importing('../adapters/memory/b.ts'), 'platform/src/adapters/memory/b.ts': value },
  },
  {
    fault: 'a primitive imports the configuration',
    tool: 'boundaries',
    complaint: /primitives-and-errors-import-nothing-above/,
    files: { 'platform/src/primitives/a.ts': importing('../config/b.ts'), 'platform/src/config/b.ts': value },
  },
  {
    fault: 'an adapter imports another adapter',
    tool: 'boundaries',
    complaint: /adapters-import-no-other-adapter/,
    files: { 'platform/src/adapters/memory/a.ts': importing('../postgres/b.ts'), 'platform/src/adapters/postgres/b.ts': value },
  },
  {
    fault: 'what the adapters share imports an adapter',
    tool: 'boundaries',
    complaint: /upstream-imports-only-below/,
    files: { 'platform/src/upstream/a.ts': importing('../adapters/memory/b.ts'), 'platform/src/adapters/memory/b.ts': value },
  },
  {
    fault: 'a stage calls a provider without an adapter',
    tool: 'boundaries',
    complaint: /only-adapters-call-upstream/,
    files: { 'platform/src/inference/a.ts': importing('../upstream/b.ts'), 'platform/src/upstream/b.ts': value },
  },
  {
    fault: 'the request path imports the gateway',
    tool: 'boundaries',
    complaint: /request-path-and-audit-import-only-below/,
    files: { 'platform/src/request-path/a.ts': importing('../gateway/b.ts'), 'platform/src/gateway/b.ts': value },
  },
  {
    fault: 'the gateway chooses an adapter',
    tool: 'boundaries',
    complaint: /surfaces-do-not-choose-adapters/,
    files: { 'platform/src/gateway/a.ts': importing('../adapters/memory/b.ts'), 'platform/src/adapters/memory/b.ts': value },
  },
  {
    fault: 'a handler mints a principal',
    tool: 'boundaries',
    complaint: /principals-are-minted-by-authentication/,
    files: { 'platform/src/gateway/a.ts': importing('../tenancy/mint-principal.ts'), 'platform/src/tenancy/mint-principal.ts': value },
  },
  {
    fault: 'the gateway mints an operator',
    tool: 'boundaries',
    complaint: /operators-are-minted-by-surfaces/,
    files: {
      'platform/src/gateway/a.ts': importing('../tenancy/mint-operator-scope.ts'),
      'platform/src/tenancy/mint-operator-scope.ts': value,
    },
  },
  {
    fault: 'two files import each other',
    tool: 'boundaries',
    complaint: /no-cycles/,
    files: { 'platform/src/errors/a.ts': importing('./b.ts'), 'platform/src/errors/b.ts': "export { copy as value } from './a.ts';\n" },
  },
  {
    fault: 'a handler talks to the database driver',
    tool: 'boundaries',
    complaint: /home-of-database/,
    files: { 'platform/src/gateway/a.ts': "import pg from 'pg';\n\nexport const pool = pg;\n" },
  },
  {
    fault: 'a stage uses the HTTP client',
    tool: 'boundaries',
    complaint: /home-of-http-client/,
    files: { 'platform/src/admission/a.ts': "import { request } from 'undici';\n\nexport const send = request;\n" },
  },
  {
    fault: 'a badly formatted file',
    tool: 'format and syntax',
    complaint: /format/i,
    files: { 'platform/src/primitives/a.ts': 'export const   value=1\n' },
  },
  {
    fault: 'an any',
    tool: 'format and syntax',
    complaint: /noExplicitAny/,
    files: { 'platform/src/primitives/a.ts': 'export function f(value: any): string {\n  return String(value);\n}\n' },
  },
  {
    fault: 'a non-null assertion',
    tool: 'format and syntax',
    complaint: /noNonNullAssertion/,
    files: { 'platform/src/primitives/a.ts': 'export const first = (list: readonly string[]) => list[0]!;\n' },
  },
  {
    fault: 'a floating promise',
    tool: 'promises and types',
    complaint: /no-floating-promises/,
    files: { 'platform/src/primitives/a.ts': 'export function f(): void {\n  Promise.resolve(1);\n}\n' },
  },
  {
    fault: 'a function of 80 lines',
    tool: 'promises and types',
    complaint: /max-lines-per-function/,
    files: { 'platform/src/primitives/a.ts': `export function f(): number {\n  let n = 0;\n${'  n += 1;\n'.repeat(80)}  return n;\n}\n` },
  },
  {
    fault: 'a thrown string',
    tool: 'promises and types',
    complaint: /only-throw-error/,
    files: { 'platform/src/primitives/a.ts': "export function f(): void {\n  throw 'no';\n}\n" },
  },
  {
    fault: 'an index that may be undefined',
    tool: 'types',
    complaint: /TS2322|TS18048|TS2532/,
    files: { 'platform/src/primitives/a.ts': 'export const first = (list: readonly string[]): string => list[0];\n' },
  },
  {
    fault: 'an enum, which type stripping cannot run',
    tool: 'types',
    complaint: /TS1294/,
    files: { 'platform/src/primitives/a.ts': 'export enum Colour {\n  Red,\n}\n' },
  },
];
