/**
 * The usage journal on the local disk. Appending is one write of one self-checking line to the newest segment, so an event survives
 * `kill -9` once `append` has returned. A flush hands the events to the ledger in batches, and moves a checkpoint; lines that are not among the
 * recent events in memory (an earlier process wrote them, or the ledger has been down) are read back.
 *
 * Exactly once: nothing is passed by before the ledger has it, and the ledger skips an id it has. Hence whatever is lost but the lines
 * themselves (the checkpoint, the deletion of a segment) is only work done twice.
 *
 * One process writes a directory; a second one fails on the exclusive creation of its segment.
 */
import { appendFileSync, mkdirSync, readdirSync, rmSync, statSync, unlinkSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { BulkheadError } from '../../errors/bulkhead-error.ts';
import type { UsageEvent } from '../../metering/usage-event.ts';
import type { UsageJournal, UsageLedger } from '../../metering/usage-journal.ts';
import { assert } from '../../primitives/assert.ts';
import type { TenantId } from '../../primitives/ids.ts';
import type { Logger } from '../../telemetry/logger.ts';
import { type Checkpoint, CheckpointFile } from './checkpoint.ts';
import { decodeLine, encodeLine } from './line.ts';
import { RecentEvents } from './recent-events.ts';
import {
  countLines,
  countMarks,
  lineBytesMax,
  readLines,
  type SealedSegment,
  SegmentWriter,
  segmentNumbers,
  segmentPath,
  type WriteBytes,
  writeToDisk,
} from './segment.ts';

export interface FileUsageJournalOptions {
  /** Made when absent; readable by the owner alone. */
  readonly directory: string;
  readonly ledger: UsageLedger;
  readonly logger: Logger;
  /** A segment is deleted whole, so this is what stays on disk when everything is in the ledger. */
  readonly segmentBytesMax?: number;
  /** What may wait for the ledger: at 1 KB an event, about a million events. */
  readonly backlogBytesMax?: number;
  /** 1 to 500. */
  readonly batchEventsMax?: number;
  /** Kept in memory until the ledger has them, about 1 KB each; 0 reads every line back. */
  readonly recentEventsMax?: number;
  readonly write?: WriteBytes;
}

const component = 'usage-journal';
const segmentBytesMaxDefault = 8 * 1_024 * 1_024;
const backlogBytesMaxDefault = 1_024 * 1_024 * 1_024;
const batchEventsMaxDefault = 500;
const recentEventsMaxDefault = 4_000;
/** Kept back for requests that are in flight when new ones are refused: 8 MiB are 8,000 events. */
const reserveBytesMax = 8 * 1_024 * 1_024;
const probe = Buffer.alloc(4_096, ' ');

interface Backlog {
  readonly checkpoint: Checkpoint;
  readonly sealed: readonly SealedSegment[];
  readonly newestNumber: number;
  readonly events: number;
  readonly bytes: number;
}

export class FileUsageJournal implements UsageJournal {
  readonly #directory: string;
  readonly #ledger: UsageLedger;
  readonly #logger: Logger;
  readonly #segmentBytesMax: number;
  readonly #backlogBytesMax: number;
  readonly #batchEventsMax: number;
  readonly #write: WriteBytes;
  #sealed: readonly SealedSegment[];
  #active: SegmentWriter | undefined;
  #newestNumber: number;
  readonly #checkpointFile: CheckpointFile;
  readonly #recent: RecentEvents;
  #checkpoint: Checkpoint;
  #pendingEvents: number;
  #backlogBytes: number;
  #mode: 'open' | 'refused by the disk' | 'closed' = 'open';
  #lastFlush: Promise<void> = Promise.resolve();

  private constructor(options: FileUsageJournalOptions, backlog: Backlog) {
    this.#directory = options.directory;
    this.#ledger = options.ledger;
    this.#logger = options.logger;
    this.#segmentBytesMax = options.segmentBytesMax ?? segmentBytesMaxDefault;
    this.#backlogBytesMax = options.backlogBytesMax ?? backlogBytesMaxDefault;
    this.#batchEventsMax = options.batchEventsMax ?? batchEventsMaxDefault;
    this.#write = options.write ?? writeToDisk;
    this.#sealed = backlog.sealed;
    this.#newestNumber = backlog.newestNumber;
    this.#checkpointFile = new CheckpointFile(options.directory);
    this.#recent = new RecentEvents(options.recentEventsMax ?? recentEventsMaxDefault);
    this.#checkpoint = backlog.checkpoint;
    this.#pendingEvents = backlog.events;
    this.#backlogBytes = backlog.bytes;
  }

  /** Finds what an earlier process left behind; the next flush delivers it. Reads the backlog once to count it (1 GB a second). */
  static async open(options: FileUsageJournalOptions): Promise<FileUsageJournal> {
    mkdirSync(options.directory, { recursive: true, mode: 0o700 });
    const backlog = await findBacklog(options.directory);
    const { events, bytes } = backlog;
    if (events > 0) options.logger.warn({ component, count: events }, `found usage events not yet in the ledger (${bytes} bytes)`);
    return new FileUsageJournal(options, backlog);
  }

  get pendingCount(): number {
    return this.#pendingEvents;
  }

  append(event: UsageEvent): void {
    this.#assertOpen();
    const line = encodeLine(event);
    assert(line.length <= lineBytesMax, 'a usage event is far smaller than 1 MiB');
    if (this.#backlogBytes + line.length > this.#backlogBytesMax) throw this.#fullError();
    try {
      const segment = this.#segmentFor(line);
      const offset = segment.size;
      segment.append(line);
      this.#recent.add(event, { segment: segment.number, offset, bytes: line.length });
    } catch (cause) {
      this.#mode = 'refused by the disk';
      throw new BulkheadError('metering_unavailable', 'The usage journal cannot write to its disk.', { cause });
    }
    this.#mode = 'open';
    this.#pendingEvents++;
    this.#backlogBytes += line.length;
  }

  assertRoom(): void {
    this.#assertOpen();
    const reserve = Math.min(reserveBytesMax, this.#backlogBytesMax / 8);
    if (this.#backlogBytes > this.#backlogBytesMax - reserve) throw this.#fullError();
    if (this.#mode === 'refused by the disk') this.#probeDisk();
  }

  /** Flushes run one after the other. Rejects with the ledger's error; what was delivered before it stays delivered. */
  flush(): Promise<void> {
    const flushed = this.#lastFlush.then(() => this.#deliverBacklog());
    this.#lastFlush = flushed.catch(() => {});
    return flushed;
  }

  /** Delivers everything and deletes every segment there is now. What could not be read is kept for a person, and `linesOf` counts it. */
  async empty(): Promise<void> {
    this.#sealActive();
    await this.flush();
  }

  /** Lines of one tenant on the disk, delivered or not, whole or damaged. Reads every file of the journal. */
  async linesOf(tenantId: TenantId): Promise<number> {
    const mark = Buffer.from(`"tenantId":${JSON.stringify(tenantId)}`);
    let count = 0;
    for (const name of readdirSync(this.#directory).filter((file) => file.endsWith('.log'))) {
      count += await countMarks(join(this.#directory, name), mark);
    }
    return count;
  }

  /** Waits for a flush under way and closes. Delivers nothing more: the next process finds the rest. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#mode === 'closed') return;
    this.#mode = 'closed';
    await this.#lastFlush;
    this.#sealActive();
    this.#checkpointFile.close();
  }

  #segmentFor(line: Buffer): SegmentWriter {
    const active = this.#active;
    if (active && !active.isTorn && (active.size === 0 || active.size + line.length <= this.#segmentBytesMax)) return active;
    const next = new SegmentWriter(this.#directory, this.#newestNumber + 1, this.#write);
    this.#sealActive();
    this.#newestNumber = next.number;
    this.#active = next;
    return next;
  }

  #sealActive(): void {
    if (this.#active) this.#sealed = [...this.#sealed, this.#active.seal()];
    this.#active = undefined;
  }

  #probeDisk(): void {
    const path = join(this.#directory, 'probe');
    try {
      writeFileSync(path, probe);
      rmSync(path);
      this.#mode = 'open';
    } catch (cause) {
      throw new BulkheadError('metering_unavailable', 'The usage journal cannot write to its disk.', { cause });
    }
  }

  #assertOpen(): void {
    if (this.#mode === 'closed') throw new BulkheadError('metering_unavailable', 'The usage journal is closed.');
  }

  #fullError(): BulkheadError {
    const message = `The usage journal is full: ${this.#backlogBytes} of ${this.#backlogBytesMax} bytes wait for the ledger.`;
    return new BulkheadError('metering_unavailable', message);
  }

  /** Bounded by what was there when it began, so appending cannot keep it from ending. */
  async #deliverBacklog(): Promise<void> {
    const sealed = this.#sealed;
    const active = this.#active && { number: this.#active.number, path: this.#active.path, size: this.#active.size };
    for (const segment of sealed) {
      await this.#deliverSegment(segment);
      this.#forget(segment);
    }
    // As it was above: segments sealed in the meantime come before the one that is active now, and a later checkpoint would pass them by.
    if (active) await this.#deliverSegment(active);
  }

  async #deliverSegment({ number, path, size: until }: SealedSegment): Promise<void> {
    let from = this.#checkpoint.segment === number ? this.#checkpoint.offset : 0;
    while (from < until) {
      const { events, nextOffset } = this.#recent.after({ segment: number, offset: from }, { until, eventsMax: this.#batchEventsMax });
      if (events.length === 0) break;
      await this.#ledger.append(events);
      this.#advance({ segment: number, offset: nextOffset }, { events: events.length, bytes: nextOffset - from });
      from = nextOffset;
    }
    if (from < until) await this.#readBack({ number, path, size: until }, from);
  }

  async #readBack({ number, path, size: until }: SealedSegment, start: number): Promise<void> {
    let from = start;
    const file = await open(path, 'r');
    try {
      while (from < until) {
        const { lines, nextOffset } = await readLines(file, { from, until, linesMax: this.#batchEventsMax });
        if (lines.length === 0) break;
        await this.#deliverLines(lines, number, from);
        this.#advance({ segment: number, offset: nextOffset }, { events: lines.length, bytes: nextOffset - from });
        from = nextOffset;
      }
    } finally {
      await file.close();
    }
    if (from < until) this.#dropTornLine(number, until - from);
  }

  async #deliverLines(lines: readonly Buffer[], segment: number, offset: number): Promise<void> {
    const decoded = lines.map(decodeLine);
    const events = decoded.filter((event) => event !== undefined);
    if (events.length > 0) await this.#ledger.append(events);
    // Afterwards, so that a ledger that is down does not fill the side file with one line over and over.
    let lineOffset = offset;
    for (const [index, line] of lines.entries()) {
      if (decoded[index] === undefined) this.#quarantine(line, segment, lineOffset);
      lineOffset += line.length + 1;
    }
  }

  /** Somebody's usage is in that line: it is kept for a person to look at, and the rest is not held up by it. */
  #quarantine(line: Buffer, segment: number, offset: number): void {
    const name = `quarantine-${String(segment).padStart(6, '0')}.log`;
    const place = `segment ${segment}, offset ${offset}`;
    this.#logger.error(
      { component, count: 1 },
      `a damaged usage event was NOT billed and is kept in ${name} (${place}, ${line.length} bytes)`,
    );
    appendFileSync(join(this.#directory, name), Buffer.concat([line, Buffer.from('\n')]), { mode: 0o600 });
  }

  /** Its append never returned, so nobody was told that it happened. */
  #dropTornLine(segment: number, bytes: number): void {
    this.#backlogBytes -= bytes;
    this.#logger.warn({ component }, `dropped ${bytes} bytes of a usage event whose write was cut off (segment ${segment})`);
  }

  #advance(checkpoint: Checkpoint, delivered: { readonly events: number; readonly bytes: number }): void {
    this.#checkpoint = checkpoint;
    this.#pendingEvents = Math.max(0, this.#pendingEvents - delivered.events);
    this.#backlogBytes -= delivered.bytes;
    // On a full disk delivery must go on, or the disk would never empty.
    this.#tryOnDisk('write the checkpoint', () => this.#checkpointFile.write(checkpoint));
  }

  #forget(segment: SealedSegment): void {
    this.#sealed = this.#sealed.filter(({ number }) => number !== segment.number);
    this.#tryOnDisk('delete a delivered segment', () => unlinkSync(segment.path));
  }

  #tryOnDisk(what: string, act: () => void): void {
    try {
      act();
    } catch (error) {
      this.#logger.warn({ component, reason: error instanceof Error ? error.message : undefined }, `could not ${what}`);
    }
  }
}

async function findBacklog(directory: string): Promise<Backlog> {
  const checkpoint = new CheckpointFile(directory).read();
  const sealed: SealedSegment[] = [];
  let events = 0;
  let bytes = 0;
  const numbers = segmentNumbers(directory);
  for (const number of numbers) {
    const path = segmentPath(directory, number);
    if (number < checkpoint.segment) {
      unlinkSync(path);
      continue;
    }
    const { size } = statSync(path);
    const delivered = number === checkpoint.segment ? checkpoint.offset : 0;
    sealed.push({ number, path, size });
    events += await countLines(path, delivered);
    bytes += Math.max(0, size - delivered);
  }
  return { checkpoint, sealed, newestNumber: Math.max(checkpoint.segment, numbers.at(-1) ?? 0), events, bytes };
}
