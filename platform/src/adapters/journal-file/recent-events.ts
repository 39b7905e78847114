import type { UsageEvent } from '../../metering/usage-event.ts';

/** A place in the journal: just before the byte at `offset` of a segment. */
export interface JournalPlace {
  readonly segment: number;
  readonly offset: number;
}

interface RecentEvent extends JournalPlace {
  readonly event: UsageEvent;
  /** Of its line, with the newline. */
  readonly bytes: number;
}

/**
 * Events appended lately, with the places of their lines, so that a flush need not read back what this process has just written. The oldest are
 * kept: when it is full, later events are left to the file until it has emptied.
 */
export class RecentEvents {
  readonly #eventsMax: number;
  #events: RecentEvent[] = [];

  constructor(eventsMax: number) {
    this.#eventsMax = eventsMax;
  }

  add(event: UsageEvent, { segment, offset, bytes }: JournalPlace & { readonly bytes: number }): void {
    const last = this.#events.at(-1);
    if (last === undefined ? this.#eventsMax === 0 : this.#events.length >= this.#eventsMax || !follows(last, segment, offset)) return;
    this.#events.push({ event, segment, offset, bytes });
  }

  /** The events of the lines that begin exactly at `from`, up to the end of their segment; none when the file must be read. They stay until forgotten. */
  after(from: JournalPlace, { until, eventsMax }: { readonly until: number; readonly eventsMax: number }) {
    this.#forgetBefore(from);
    const events: UsageEvent[] = [];
    let nextOffset = from.offset;
    for (const recent of this.#events) {
      const isNext = recent.segment === from.segment && recent.offset === nextOffset && nextOffset + recent.bytes <= until;
      if (!isNext || events.length >= eventsMax) break;
      events.push(recent.event);
      nextOffset += recent.bytes;
    }
    return { events, nextOffset };
  }

  #forgetBefore({ segment, offset }: JournalPlace): void {
    const kept = this.#events.findIndex((recent) => recent.segment > segment || (recent.segment === segment && recent.offset >= offset));
    if (kept !== 0) this.#events = kept < 0 ? [] : this.#events.slice(kept);
  }
}

/** The next line of the same segment, or the first line of a later one. */
function follows(last: RecentEvent, segment: number, offset: number): boolean {
  return segment === last.segment ? offset === last.offset + last.bytes : segment > last.segment && offset === 0;
}
