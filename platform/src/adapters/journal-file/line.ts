import { crc32 } from 'node:zlib';
import type { CostLine, UsageEvent } from '../../metering/usage-event.ts';
import { type NanoUsd, nanoUsd } from '../../primitives/money.ts';

const formatVersion = 1;

/** One event as one line that can tell whether it is whole: `<crc32, 8 hex digits> <bytes of JSON> <JSON>\n`. Money is decimal text. */
export function encodeLine(event: UsageEvent): Buffer {
  const costLines = event.costLines.map((line) => ({ ...line, cost: line.cost.toString() }));
  const json = JSON.stringify({ ...event, cost: event.cost?.toString() ?? null, costLines, v: formatVersion });
  return Buffer.from(`${checksum(json)} ${Buffer.byteLength(json)} ${json}\n`);
}

/** `line` without its newline. Undefined when it is not, byte for byte, what `encodeLine` wrote. */
export function decodeLine(line: Buffer): UsageEvent | undefined {
  const header = /^([0-9a-f]{8}) (\d{1,9}) /.exec(line.subarray(0, 19).toString('latin1'));
  if (!header) return undefined;
  const json = line.subarray(header[0].length);
  if (json.length !== Number(header[2]) || checksum(json) !== header[1]) return undefined;
  return parseEvent(json);
}

type StoredEvent = Omit<UsageEvent, 'cost' | 'costLines'> & {
  readonly v: number;
  readonly cost: string | null;
  readonly costLines: readonly (Omit<CostLine, 'cost'> & { readonly cost: string })[];
};

/** The checksum vouches for the shape: only this file writes lines. A line of a later format is not ours to read. */
function parseEvent(json: Buffer): UsageEvent | undefined {
  const { v, cost, costLines, ...rest } = JSON.parse(json.toString('utf8')) as StoredEvent;
  if (v !== formatVersion) return undefined;
  return { ...rest, cost: cost === null ? null : money(cost), costLines: costLines.map((line) => ({ ...line, cost: money(line.cost) })) };
}

function money(text: string): NanoUsd {
  return nanoUsd(BigInt(text));
}

/** Of UTF-8. */
function checksum(json: string | Buffer): string {
  return crc32(json).toString(16).padStart(8, '0');
}
