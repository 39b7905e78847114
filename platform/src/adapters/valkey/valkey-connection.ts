/**
 * The connection to Valkey (or Redis 7): commands wait for an answer for a short time and never for a connection. Whoever asks hears `ValkeyUnavailable` and goes
 * on without.
 */
import { createHash } from 'node:crypto';
import { createClient } from '@redis/client';
import type { Logger } from '../../telemetry/logger.ts';

export interface ValkeyOptions {
  readonly url: string;
  readonly commandTimeoutMs: number;
  readonly logger: Logger;
}

/** No connection, no answer in time, or an answer that is an error of the server. */
export class ValkeyUnavailable extends Error {}

const component = 'valkey';
const connectTimeoutMs = 2_000;
const reconnectMaxMs = 1_000;
/** Commands without an answer, beyond which the next is refused at once. */
const commandsMax = 10_000;

export class Script {
  readonly text: string;
  readonly sha: string;

  constructor(text: string) {
    this.text = text;
    this.sha = createHash('sha1').update(text).digest('hex');
  }
}

export class ValkeyConnection implements AsyncDisposable {
  readonly #client: ReturnType<typeof createClient>;
  readonly #options: ValkeyOptions;
  #subscriber: ReturnType<typeof createClient> | undefined;

  private constructor(options: ValkeyOptions) {
    this.#options = options;
    this.#client = createClient({
      url: options.url,
      disableOfflineQueue: true,
      commandsQueueMaxLength: commandsMax,
      socket: {
        connectTimeout: connectTimeoutMs,
        reconnectStrategy: (retries) => Math.min(reconnectMaxMs, 50 * 2 ** Math.min(retries, 10)),
      },
    });
    // Without a listener an error would end the process; who asks hears of it, and the log once.
    this.#client.on('error', () => {});
    let isUp = true;
    this.#client.on('ready', () => {
      if (!isUp) options.logger.info({ component }, 'Valkey is there again');
      isUp = true;
    });
    this.#client.on('reconnecting', () => {
      if (isUp) options.logger.warn({ component }, 'the connection to Valkey is lost; it is tried again');
      isUp = false;
    });
  }

  /** Does not wait for the server: a process starts without it. */
  static open(options: ValkeyOptions): ValkeyConnection {
    const connection = new ValkeyConnection(options);
    connection.#client.connect().catch(() => {});
    return connection;
  }

  get isReady(): boolean {
    return this.#client.isReady;
  }

  /** Throws `ValkeyUnavailable`. */
  async send<Reply>(command: readonly string[]): Promise<Reply> {
    if (!this.#client.isReady) throw new ValkeyUnavailable('there is no connection to Valkey');
    const { promise: late, reject } = Promise.withResolvers<never>();
    const giveUp = () => reject(new ValkeyUnavailable('Valkey did not answer in time'));
    // Not before what has arrived is read: where this process was busy for as long, the answer is here and the timer is first.
    const timer = setTimeout(() => setImmediate(giveUp), this.#options.commandTimeoutMs);
    try {
      return await Promise.race([this.#client.sendCommand([...command]) as Promise<Reply>, late]);
    } catch (error) {
      if (error instanceof ValkeyUnavailable || isMissingScript(error)) throw error;
      throw new ValkeyUnavailable('Valkey answered with an error', { cause: error });
    } finally {
      clearTimeout(timer);
    }
  }

  /** Sent by its digest, and whole where the server does not know it yet. */
  async run<Reply>(script: Script, keys: readonly string[], args: readonly string[]): Promise<Reply> {
    const rest = [String(keys.length), ...keys, ...args];
    try {
      return await this.send(['EVALSHA', script.sha, ...rest]);
    } catch (error) {
      if (!isMissingScript(error)) throw error;
      return await this.send(['EVAL', script.text, ...rest]);
    }
  }

  /** Over a second connection, opened at the first subscription and again whenever it is lost; messages of the time between are lost. */
  subscribe(channel: string, onMessage: (message: string) => void): void {
    const subscriber = this.#subscriber ?? this.#client.duplicate({ disableOfflineQueue: false });
    if (this.#subscriber === undefined) {
      this.#subscriber = subscriber;
      subscriber.on('error', () => {});
      subscriber.connect().catch(() => {});
    }
    subscriber.subscribe(channel, onMessage).catch(() => {});
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#subscriber?.destroy();
    this.#client.destroy();
  }
}

function isMissingScript(error: unknown): boolean {
  return error instanceof Error && error.message.startsWith('NOSCRIPT');
}
