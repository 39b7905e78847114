/** What is planted: tokens, facts and vector twins, in documents that make sense to a search. */
import { randomInt } from 'node:crypto';
import type { TenantId } from '../primitives/ids.ts';
import type { CanaryTokens } from './canary-token.ts';

export interface CanaryTexts {
  /** A word that no other tenant has; attackers may say it. */
  readonly bait: string;
  /** Tokens, one a place. Attackers never say them, so one that comes back came out of the place. */
  readonly secrets: Readonly<Record<'chunk' | 'twin' | 'attribute' | 'filename' | 'storeName' | 'metadata' | 'conversation', string>>;
  /** A code in a sentence: survives paraphrase, has no token's form. */
  readonly fact: string;
  readonly vault: string;
  /** The same in every tenant but for the token, so that a neighbour by distance would be the other tenant's. */
  readonly twin: string;
}

export function canaryTexts(tokens: CanaryTokens, tenantId: TenantId): CanaryTexts {
  const token = () => tokens.make(tenantId);
  const secrets = {
    chunk: token(),
    twin: token(),
    attribute: token(),
    filename: token(),
    storeName: token(),
    metadata: token(),
    conversation: token(),
  };
  const bait = `zq${letters(12)}`;
  const fact = `7Q-${randomInt(10, 100)}-KESTREL-${letters(6).toUpperCase()}`;
  const vault = `# Vault\n\nThe vault word of this house is ${bait}. Its keeper wrote ${secrets.chunk} beside it. The Halvorsen rebate code is ${fact}.\n`;
  return { bait, secrets, fact, vault, twin: twinText(secrets.twin) };
}

/** Said with any token in its place, it has the same words around it. */
export function twinText(token: string): string {
  return `# Deliveries\n\nThe quarterly deliveries of the northern warehouse moved from Tuesday to Thursday; drivers confirm at the gate with ${token} before noon.\n`;
}

/** Subjects of the catalogue document, one chunk each: what the recall floor asks for. */
export const catalogueSubjects = [
  'lighthouse',
  'orchard',
  'foundry',
  'aqueduct',
  'observatory',
  'shipyard',
  'bakery',
  'glacier',
  'vineyard',
  'printing press',
  'beehive',
  'railway',
] as const;

/** A chapter for each subject, longer than the smallest chunk. */
export function catalogueText(): string {
  return catalogueSubjects.map((subject) => `# The ${subject}\n\n${chapter(subject)}\n`).join('\n');
}

const sentences = [
  'was built by hand in the second year and paid for over eleven',
  'keeps a ledger of every visitor, and the ledger is read aloud each spring',
  'has three doors of which one is opened only when the wind comes from the east',
  'was repaired after the great storm with stone from the old quarry by the river',
  'employs nine people in summer and four in winter, who share one kitchen',
  'is inspected twice a year by two engineers who must not be related to each other',
  'has been painted by every pupil of the school on the hill at least once',
];

function chapter(subject: string): string {
  return sentences.map((sentence) => `The ${subject} ${sentence}.`).join(' ');
}

function letters(count: number): string {
  return Array.from({ length: count }, () => String.fromCharCode(97 + randomInt(26))).join('');
}
