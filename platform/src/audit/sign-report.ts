/**
 * Makes a report evidence: its hash takes in the hash of the report before it, and the installation's key signs the result. A report that was altered
 * does not verify; one that was removed leaves a gap that the next one names.
 */
import { createHash } from 'node:crypto';
import {
  canonicalJson,
  type DocumentSigner,
  type SignatureFault,
  type SignedDocument,
  signatureFault,
} from '../primitives/signed-document.ts';
import type { AuditReport } from './audit-report.ts';

const kind = 'bulkhead.isolation-audit';

export interface ChainPlace {
  /** Position in the chain, from 1. */
  readonly number: number;
  /** Hash of the report before this one; null for the first. */
  readonly previous: string | null;
}

export interface ChainedReport extends AuditReport, ChainPlace {
  /** SHA-256 over the canonical JSON of everything else. */
  readonly chainHead: string;
}

export type SignedReport = SignedDocument<ChainedReport>;

export function signReport(report: AuditReport, place: ChainPlace, signer: DocumentSigner): SignedReport {
  const placed = { ...report, ...place };
  return signer.sign(kind, { ...placed, chainHead: chainHeadOf(placed) });
}

/** Undefined: it says what this installation found. `publicKey` (PEM) is the one to trust; what the report says of itself proves nothing. */
export function reportFault(document: unknown, publicKey: string): SignatureFault | undefined {
  const fault = signatureFault(document, kind, publicKey);
  if (fault !== undefined) return fault;
  const { chainHead, ...placed } = (document as SignedReport).body;
  return chainHead === chainHeadOf(placed) ? undefined : 'changed after it was signed';
}

function chainHeadOf(placed: AuditReport & ChainPlace): string {
  return `sha256:${createHash('sha256').update(canonicalJson(placed)).digest('hex')}`;
}
