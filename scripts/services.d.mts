/** Why there can be no servers here, as a sentence with what to do; undefined when there can be. */
export function whyNoServers(): string | undefined;

export interface RunningService {
  readonly url: string;
  stop(): Promise<void>;
}

export function startPostgres(options?: {
  readonly isFresh?: boolean;
  readonly settings?: Readonly<Record<string, string>>;
}): Promise<RunningService>;
export function startPgBouncer(
  serverUrl: string,
  options: { readonly users: readonly string[]; readonly port?: number },
): Promise<RunningService>;

export interface RunningValkey {
  readonly url: string;
  /** Absent: a server of somebody else's (TEST_VALKEY_URL). */
  readonly port?: number;
  readonly pid?: number;
  /** Runs valkey-benchmark against it; resolves with what it printed. Absent as the port is. */
  benchmark?(args: readonly (string | number)[]): Promise<string>;
  stop(signal?: NodeJS.Signals): Promise<void>;
}

export function startValkey(options?: {
  readonly port?: number;
  readonly isCluster?: boolean;
  readonly replicaOf?: number;
}): Promise<RunningValkey>;
