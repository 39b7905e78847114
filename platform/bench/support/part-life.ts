import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';

/** The other end of `startPart`: says where the server listens, and ends the process on SIGTERM or when the benchmark is gone. */
export function serveAsPart(server: Server): void {
  server.listen({ host: '127.0.0.1', port: 0, backlog: 4_096 }, () => {
    const { port } = server.address() as AddressInfo;
    process.stdout.write(`${JSON.stringify({ ready: true, url: `http://127.0.0.1:${port}` })}\n`);
  });
  process.on('SIGTERM', () => process.exit(0));
  process.stdin.on('end', () => process.exit(0)).resume();
}
