/** Forges a job for the isolation audit: one that names a victim's file, with an envelope that was not sealed for the victim. */
import { randomBytes } from 'node:crypto';
import { setTimeout as wait } from 'node:timers/promises';
import type { TenantId } from '../primitives/ids.ts';
import type { JobDesk } from '../tenancy/audit-records.ts';
import { auditPrincipalOf } from './audit-principal.ts';
import type { JobEnvelopes } from './job-envelope.ts';

const pollMs = 20;
const waitMaxMs = 15_000;

export interface JobForgery {
  readonly attacker: TenantId;
  readonly victim: TenantId;
  readonly envelope: 'names the victim, unsigned' | 'sealed by the attacker';
  readonly fileId: string;
  readonly signal: AbortSignal;
}

/** Resolves with what became of the job, and leaves none of it in the queue. Its id begins with `audit_`, for whoever reads of it in the log. */
export async function forgeJob(
  { desk, envelopes, wake }: { readonly desk: JobDesk; readonly envelopes: JobEnvelopes; readonly wake: () => void },
  { attacker, victim, envelope, fileId, signal }: JobForgery,
): Promise<'buried' | 'done' | 'waiting'> {
  const job = { id: `audit_${randomBytes(12).toString('hex')}`, kind: 'expire_file', payload: { fileId } } as const;
  const own = auditPrincipalOf(attacker);
  const theirs = auditPrincipalOf(victim);
  const sealed = envelopes.seal(envelope === 'sealed by the attacker' ? own : theirs, job);
  const text = envelope === 'sealed by the attacker' ? sealed : `${sealed.split('.')[0]}.${randomBytes(32).toString('base64url')}`;
  await desk.insert(own, { ...job, envelope: text });
  try {
    wake();
    for (const untilMs = performance.now() + waitMaxMs; performance.now() < untilMs && !signal.aborted; await wait(pollMs)) {
      const state = await desk.stateOf(job.id);
      if (state !== 'there') return state === 'gone' ? 'done' : 'buried';
    }
    return 'waiting';
  } finally {
    await desk.remove(job.id);
  }
}
