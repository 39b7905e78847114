/** Days, weeks (from Monday) and months as a place on earth counts them, with its summer time: names of periods and where they end. */
export type PeriodKind = 'day' | 'week' | 'month';

export interface CalendarPeriod {
  /** `2026-11-27`, `2026-11-23/P7D` or `2026-11`: the first day, as ISO 8601 writes it. */
  readonly id: string;
  /** The first moment of the next one, milliseconds since the Unix epoch. */
  readonly endsAtMs: number;
}

const dayMs = 86_400_000;
/** Longer than any period, summer time included. */
const longestMs = 33 * dayMs;

interface Known extends CalendarPeriod {
  readonly fromMs: number;
}

/** One for each kind and time zone that is in use; there are some 400 zones. */
const known = new Map<string, Known>();
const formats = new Map<string, Intl.DateTimeFormat>();

/** `timeZone` is an IANA name that `isTimeZone` accepts. */
export function periodAt(kind: PeriodKind, timeZone: string, atMs: number): CalendarPeriod {
  const slot = `${kind} ${timeZone}`;
  const latest = known.get(slot);
  if (latest !== undefined && latest.fromMs <= atMs && atMs < latest.endsAtMs) return latest;
  const id = idAt(kind, timeZone, atMs);
  const period: Known = { id, fromMs: atMs, endsAtMs: endOf(id, (timeMs) => idAt(kind, timeZone, timeMs), atMs) };
  known.set(slot, period);
  return period;
}

export function isTimeZone(name: string): boolean {
  try {
    return /^[A-Za-z0-9+_/-]{1,64}$/.test(name) && formatOf(name) !== undefined;
  } catch {
    return false;
  }
}

/** The first millisecond with another id. */
function endOf(id: string, idOf: (timeMs: number) => string, atMs: number): number {
  let [inside, outside] = [Math.floor(atMs), Math.floor(atMs) + longestMs];
  while (outside - inside > 1) {
    const middle = Math.floor((inside + outside) / 2);
    if (idOf(middle) === id) inside = middle;
    else outside = middle;
  }
  return outside;
}

function idAt(kind: PeriodKind, timeZone: string, timeMs: number): string {
  const date = formatOf(timeZone).format(timeMs);
  if (kind === 'month') return date.slice(0, 7);
  if (kind === 'day') return date;
  const noon = Date.parse(`${date}T12:00:00Z`);
  const sinceMonday = (new Date(noon).getUTCDay() + 6) % 7;
  return `${new Date(noon - sinceMonday * dayMs).toISOString().slice(0, 10)}/P7D`;
}

/** The Canadian form of a date is that of ISO 8601. */
function formatOf(timeZone: string): Intl.DateTimeFormat {
  const made = formats.get(timeZone);
  if (made !== undefined) return made;
  const format = new Intl.DateTimeFormat('en-CA', { timeZone, year: 'numeric', month: '2-digit', day: '2-digit' });
  formats.set(timeZone, format);
  return format;
}
