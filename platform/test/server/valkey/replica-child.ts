/** A process that floods a shared pool until it is killed, for shared-permits.test.ts: `node replica-child.ts URL PREFIX ID CAPACITY TENANT`. Tells what it runs ten times a second. */
import { flood, openSharingReplica } from '../../support/sharing-replica.ts';

const [url = '', prefix = '', id = '', capacity = '', tenant = ''] = process.argv.slice(2);
const replica = await openSharingReplica({ url, prefix, id, capacity: Number(capacity), commandTimeoutMs: 200 });
let started = 0;
setInterval(() => process.stdout.write(`${JSON.stringify({ running: replica.pool.inFlight, started })}\n`), 100);
await flood(replica, { tenant, depth: 40, holdMs: 150, signal: new AbortController().signal, onStart: () => void started++ });
