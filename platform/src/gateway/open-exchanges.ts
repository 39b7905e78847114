/** The exchanges that are open now: for disconnects, deadlines, heartbeats and an orderly end. */
import type { Socket } from 'node:net';
import { BulkheadError } from '../errors/bulkhead-error.ts';
import { Slots } from '../primitives/slots.ts';
import type { OpenExchange } from './open-exchange.ts';

interface Connection {
  /** May have ended already. */
  latest: OpenExchange;
}

export class OpenExchanges {
  readonly #open = new Slots<OpenExchange>();
  readonly #connections = new WeakMap<object, Connection>();
  #whenEmpty: PromiseWithResolvers<void> | undefined;

  get size(): number {
    return this.#open.size;
  }

  add(exchange: OpenExchange): void {
    exchange.slot = this.#open.put(exchange);
    const { socket } = exchange.request;
    const connection = this.#connections.get(socket);
    if (connection === undefined) this.#connections.set(socket, { latest: exchange });
    else connection.latest = exchange;
  }

  remove(exchange: OpenExchange): void {
    if (exchange.slot === undefined) return;
    this.#open.take(exchange.slot);
    exchange.slot = undefined;
    if (this.#open.size === 0) this.#whenEmpty?.resolve();
  }

  /** The exchange that a fault of this connection belongs to. */
  ofSocket(socket: Socket): OpenExchange | undefined {
    const latest = this.#connections.get(socket)?.latest;
    return latest?.slot === undefined ? undefined : latest;
  }

  /** Heartbeats and stalls of the streams, bodies that do not come; `onExpired` gets what is older than `durationMaxMs`. O(open). */
  sweep(nowMs: number, durationMaxMs: number, onExpired: (exchange: OpenExchange) => void): void {
    for (const exchange of this.#open) {
      exchange.stream?.sweep(nowMs);
      if (exchange.readDeadlineMs !== undefined && nowMs >= exchange.readDeadlineMs) exchange.breakOff(tooSlow());
      if (nowMs - exchange.startedAtMs >= durationMaxMs) onExpired(exchange);
    }
  }

  /** Resolves at once when nothing is open. */
  whenEmpty(): Promise<void> {
    if (this.#open.size === 0) return Promise.resolve();
    this.#whenEmpty ??= Promise.withResolvers<void>();
    return this.#whenEmpty.promise;
  }

  all(): readonly OpenExchange[] {
    return [...this.#open];
  }
}

function tooSlow(): BulkheadError {
  return new BulkheadError('request_timeout', 'the request did not arrive in time');
}
