/** Where the audit comes in: known only when the route table is made and the gateway listens, and needed by routes of that table. */
import type { AuditedRoute } from '../audit/audit-ports.ts';
import type { Gateway } from '../gateway/server.ts';
import { assert } from '../primitives/assert.ts';

interface Address {
  readonly host: string;
  readonly port: number;
}

export class AuditedDoor {
  #routes: readonly AuditedRoute[] = [];
  #gateway: Gateway | undefined;
  #address: Promise<Address> | undefined;

  get routes(): readonly AuditedRoute[] {
    return this.#routes;
  }

  /** `address` undefined: a process that serves nobody opens a door on loopback when it is audited. */
  open(routes: readonly AuditedRoute[], gateway: Gateway, address: Address | undefined): void {
    this.#routes = routes;
    this.#gateway = gateway;
    this.#address = address === undefined ? undefined : Promise.resolve(address);
  }

  async baseUrl(): Promise<string> {
    assert(this.#gateway !== undefined, 'the gateway is open before anybody can ask for an audit');
    this.#address ??= this.#gateway.listen({ host: '127.0.0.1', port: 0 });
    const { host, port } = await this.#address;
    return `http://${reachable(host)}:${port}`;
  }
}

/** The address to call for the address that is listened on. */
function reachable(host: string): string {
  if (host === '0.0.0.0') return '127.0.0.1';
  if (host === '::') return '[::1]';
  return host.includes(':') ? `[${host}]` : host;
}
