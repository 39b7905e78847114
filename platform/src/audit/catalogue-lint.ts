/**
 * Reads the catalogue of the live database and finds what would let one tenant see another: at boot, where a finding stops the process, and
 * in tests, where every defect of the list is planted. Probes from outside cannot see most of these (an empty new table without policies
 * looks healthy), which is why the catalogue is read at all.
 */
import { catalogueRules, catalogueViews } from './catalogue-rules.ts';

/** Port: runs one read-only statement as a login that sees the whole catalogue. */
export type CatalogueReader = (statement: string) => Promise<readonly { readonly object: string; readonly detail: string }[]>;

export interface CatalogueFinding {
  readonly rule: string;
  readonly means: string;
  readonly object: string;
  readonly detail: string;
}

/** Every rule against the catalogue; empty when the schema is sound. A few milliseconds. */
export async function lintCatalogue(read: CatalogueReader): Promise<readonly CatalogueFinding[]> {
  const findings: CatalogueFinding[] = [];
  for (const { id, means, query } of catalogueRules) {
    const rows = await read(`${catalogueViews} ${query}`);
    findings.push(...rows.map(({ object, detail }) => ({ rule: id, means, object, detail })));
  }
  return findings;
}

export function describeFindings(findings: readonly CatalogueFinding[]): string {
  return findings
    .map(({ rule, means, object, detail }) => `  ${rule} ${object}${detail === '' ? '' : ` (${detail})`}: ${means}`)
    .join('\n');
}
