/** Which replicas there are: each says every second that it is here, and is forgotten three seconds after it last did. */
import type { Place } from '../../admission/replicated-limits.ts';
import { Script, type ValkeyConnection } from './valkey-connection.ts';

const everyMs = 1_000;
const forgottenAfterMs = 3_000;
/** Before Valkey was ever asked: not alone. */
const unknownPlace: Place = { rank: 0, count: 2 };

const presence = new Script(`
local t = redis.call('TIME')
local at = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('ZADD', KEYS[1], string.format('%.0f', at + ARGV[2]), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', at))
redis.call('PEXPIRE', KEYS[1], 60000)
return redis.call('ZRANGE', KEYS[1], 0, -1)`);

export class ReplicaPresence implements Disposable {
  readonly #connection: ValkeyConnection;
  readonly #id: string;
  readonly #key: string;
  readonly #timer: NodeJS.Timeout;
  #place = unknownPlace;

  constructor(connection: ValkeyConnection, { id, prefix = 'bulkhead' }: { readonly id: string; readonly prefix?: string }) {
    this.#connection = connection;
    this.#id = id;
    this.#key = `${prefix}:replicas`;
    this.#timer = setInterval(() => void this.beHere(), everyMs);
    this.#timer.unref();
    void this.beHere();
  }

  /** As it was when Valkey last answered. */
  get place(): Place {
    return this.#place;
  }

  async beHere(): Promise<void> {
    try {
      const ids = await this.#connection.run<readonly string[]>(presence, [this.#key], [this.#id, String(forgottenAfterMs)]);
      this.#place = { rank: ids.toSorted().indexOf(this.#id), count: ids.length };
    } catch {
      // Whoever was here last is here still, as far as anybody can tell.
    }
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }
}
