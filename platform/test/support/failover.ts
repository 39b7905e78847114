/** A Valkey with a copy behind one address, as a proxy or a virtual address in front of the two is: the copy takes over, and may have missed the latest writes. */
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { createClient } from '@redis/client';
import { type RunningValkey, startValkey } from '../../../scripts/services.mjs';

export interface ValkeyWithCopy {
  readonly url: string;
  /** From here on the copy hears nothing more: what is written now is lost when it takes over. */
  cutOff(): Promise<void>;
  /** The first is killed, its connections break, and the next ones reach the copy. */
  failOver(): Promise<void>;
  stop(signal?: NodeJS.Signals): Promise<void>;
}

export async function startValkeyWithCopy(): Promise<ValkeyWithCopy> {
  const first = await startValkey();
  const copy = await startValkey({ replicaOf: first.port as number });
  await untilCopied(copy);
  const open = new Set<Socket>();
  let target = first;
  const switchboard = createServer((client) => {
    const server = connect(target.port as number, '127.0.0.1');
    for (const [from, to] of [
      [client, server],
      [server, client],
    ] as const) {
      open.add(from);
      from.on('error', () => {});
      from.on('close', () => {
        open.delete(from);
        to.destroy();
      });
      from.pipe(to);
    }
  });
  switchboard.listen(0, '127.0.0.1');
  await once(switchboard, 'listening');
  return {
    url: `redis://127.0.0.1:${(switchboard.address() as AddressInfo).port}`,
    async cutOff() {
      // What was written until now is there: what comes after is not.
      await onServer(first, ['WAIT', '1', '1000']);
      await onServer(copy, ['REPLICAOF', 'NO', 'ONE']);
    },
    async failOver() {
      await first.stop('SIGKILL');
      target = copy;
      for (const socket of open) socket.destroy();
    },
    async stop(signal) {
      switchboard.close();
      for (const socket of open) socket.destroy();
      await first.stop(signal);
      await copy.stop(signal);
    },
  };
}

async function onServer({ url }: RunningValkey, command: string[]): Promise<unknown> {
  const client = await createClient({ url }).connect();
  try {
    return await client.sendCommand(command);
  } finally {
    client.destroy();
  }
}

async function untilCopied(copy: RunningValkey): Promise<void> {
  for (let attempt = 0; attempt < 300; attempt++) {
    if (String(await onServer(copy, ['INFO', 'replication'])).includes('master_link_status:up')) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error('the copy did not begin');
}
