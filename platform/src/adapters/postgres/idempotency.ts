/** Idempotency keys of one tenant, kept 24 hours. A claim whose process died before it answered is free again after 15 minutes. */
import { sql } from 'kysely';
import type { Clock } from '../../primitives/clock.ts';
import type { IdempotencyCabinet } from '../../tenancy/capabilities.ts';
import type { TenantDatabase } from './database.ts';
import { sealed } from './sealed-columns.ts';

const keptMs = 24 * 3_600_000;
/** Longer than any answer may take. */
const abandonedMs = 15 * 60_000;
const expiredMax = 100;

interface ClaimRow {
  readonly body_sha256: string;
  readonly status: number | null;
  readonly body: Buffer | null;
}

export function openIdempotencyCabinet(database: TenantDatabase, clock: Clock): IdempotencyCabinet {
  return {
    async claim(route, key, bodySha256) {
      const nowMs = clock.nowMs();
      const claim = await database.write(async (db) => {
        await sql`
          DELETE FROM app.idempotency WHERE (route, key) IN (
            SELECT route, key FROM app.idempotency WHERE created_at_ms < ${nowMs - keptMs} ORDER BY created_at_ms LIMIT ${expiredMax})
          OR (route = ${route} AND key = ${key}
            AND (created_at_ms < ${nowMs - keptMs} OR (status IS NULL AND created_at_ms < ${nowMs - abandonedMs})))`.execute(db);
        const claimed = await sql`
          INSERT INTO app.idempotency (route, key, body_sha256, created_at_ms) VALUES (${route}, ${key}, ${bodySha256}, ${nowMs})
          ON CONFLICT (tenant_id, route, key) DO NOTHING RETURNING key`.execute(db);
        if (claimed.rows.length > 0) return { kind: 'claimed' } as const;
        const { rows } =
          await sql<ClaimRow>`SELECT body_sha256, status, body FROM app.idempotency WHERE route = ${route} AND key = ${key}`.execute(db);
        const [earlier] = rows;
        if (earlier === undefined) return { kind: 'running' } as const;
        if (earlier.body_sha256 !== bodySha256) return { kind: 'mismatch' } as const;
        return earlier.status === null
          ? ({ kind: 'running' } as const)
          : ({ kind: 'done', status: earlier.status, body: earlier.body } as const);
      });
      if (claim.kind !== 'done' || claim.body === null) return claim.kind === 'done' ? { ...claim, body: '' } : claim;
      return { ...claim, body: (await database.cipher.open(sealed.idempotencyBody, [route, key], claim.body)).toString('utf8') };
    },
    async complete(route, key, answer) {
      const sealer = await database.cipher.sealer(1);
      const body = () => sealer.seal(sealed.idempotencyBody, [route, key], Buffer.from(answer.body, 'utf8'));
      await database.write((db) =>
        sql`UPDATE app.idempotency SET status = ${answer.status}, body = ${body()} WHERE route = ${route} AND key = ${key}`.execute(db),
      );
    },
    async release(route, key) {
      await database.write((db) => sql`DELETE FROM app.idempotency WHERE route = ${route} AND key = ${key} AND status IS NULL`.execute(db));
    },
  };
}
