/**
 * Structured, one line a record, secrets redacted at the sink. Callers pass typed fields from `LogFields` only: there is no
 * field for content, prompts, documents, vectors or credentials, so they cannot be logged by accident.
 */
import { type Logger as PinoLogger, pino } from 'pino';

export interface LogFields {
  readonly requestId?: string | undefined;
  /** What the client calls the request: printable, at most 512 characters. */
  readonly clientRequestId?: string | undefined;
  readonly tenantId?: string | undefined;
  readonly keyId?: string | undefined;
  readonly route?: string | undefined;
  readonly method?: string | undefined;
  readonly status?: number | undefined;
  readonly code?: string | undefined;
  readonly model?: string | undefined;
  readonly provider?: string | undefined;
  readonly durationMs?: number | undefined;
  readonly queueMs?: number | undefined;
  readonly count?: number | undefined;
  /** recall@10 of an approximate index, 0 to 1. */
  readonly recall?: number | undefined;
  readonly jobId?: string | undefined;
  readonly component?: string | undefined;
  /** Stack of an unexpected error. Messages of database and provider errors stay out of it. */
  readonly stack?: string | undefined;
  readonly reason?: string | undefined;
}

export interface Logger {
  debug(fields: LogFields, message: string): void;
  info(fields: LogFields, message: string): void;
  warn(fields: LogFields, message: string): void;
  error(fields: LogFields, message: string): void;
}

export type LogLevel = 'debug' | 'info' | 'warn' | 'error' | 'silent';

/** Writes JSON lines to `destination` (default standard error). */
export function createLogger(level: LogLevel, destination?: NodeJS.WritableStream): Logger {
  const options = { level, base: null, timestamp: pino.stdTimeFunctions.isoTime };
  const sink: PinoLogger = destination ? pino(options, destination) : pino(options, pino.destination({ fd: 2, sync: false }));
  return {
    debug: (fields, message) => {
      // The one level that is off by default and written for every request.
      if (sink.isLevelEnabled('debug')) sink.debug(fields, escapeControls(message));
    },
    info: (fields, message) => sink.info(fields, escapeControls(message)),
    warn: (fields, message) => sink.warn(fields, escapeControls(message)),
    error: (fields, message) => sink.error(fields, escapeControls(message)),
  };
}

export const silentLogger: Logger = { debug() {}, info() {}, warn() {}, error() {} };

function escapeControls(text: string): string {
  // JSON escapes C0; C1 and the line separators would still drive a terminal.
  let escaped = '';
  for (const character of text) {
    const code = character.codePointAt(0) ?? 0;
    const drivesTerminal = (code >= 0x7f && code <= 0x9f) || code === 0x2028 || code === 0x2029;
    escaped += drivesTerminal ? `\\u${code.toString(16).padStart(4, '0')}` : character;
  }
  return escaped;
}
