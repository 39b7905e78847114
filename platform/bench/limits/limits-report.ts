import { median, table, whole } from '../support/table.ts';
import type { Leaks } from './leaks.ts';
import type { Outage } from './outage.ts';
import type { OverAdmission } from './over-admission.ts';
import type { StorePace } from './store-pace.ts';
import type { ValkeyCost } from './valkey-cost.ts';

/** What needs a Valkey is absent where there is none. */
export interface Findings {
  readonly inMemory: readonly (StorePace & { readonly shape: string })[];
  readonly overInMemory: OverAdmission;
  readonly leaksInMemory: Leaks;
  readonly inValkey?: readonly ValkeyCost[];
  readonly overInValkey?: OverAdmission;
  readonly leaksInValkey?: Leaks;
  readonly outage?: Outage;
}

export interface Gate {
  readonly demand: string;
  readonly found: string;
  readonly holds: boolean;
}

const requestsPerSecondMin = 7_000;
const serverUsMax = 60;
const inMemoryPerSecondMin = 200_000;
const callsPerRequestMax = 2;
const outageBeyondPercentMax = 5;

export function gatesOf(findings: Findings): readonly Gate[] {
  const { inMemory, inValkey, overInMemory, overInValkey, leaksInMemory, leaksInValkey, outage } = findings;
  const gates = inMemory.map(({ shape, processorUsPerRequest }) => {
    const perSecond = 1e6 / processorUsPerRequest;
    const demand = `in memory, ${shape}: ${whole(inMemoryPerSecondMin)} requests a processor second`;
    return gate(demand, whole(perSecond), perSecond >= inMemoryPerSecondMin);
  });
  for (const [where, over] of [
    ['memory', overInMemory],
    ['Valkey', overInValkey],
  ] as const) {
    if (over !== undefined)
      gates.push(gate(`${where}: nothing admitted beyond the exact bucket, 64 at once`, `${over.over}`, over.over === 0));
  }
  for (const [where, leaks] of [
    ['memory', leaksInMemory],
    ['Valkey', leaksInValkey],
  ] as const) {
    if (leaks === undefined) continue;
    const held = [leaks.slotsHeld, leaks.nanoUsdHeld, leaks.leasesHeld];
    gates.push(
      gate(
        `${where}: a lease after ${whole(leaks.endings)} endings nothing is held`,
        held.join(', '),
        held.every((each) => each === 0),
      ),
    );
  }
  return [...gates, ...valkeyGates(inValkey ?? []), ...(outage === undefined ? [] : [outageGate(outage)])];
}

function valkeyGates(rows: readonly ValkeyCost[]): readonly Gate[] {
  const [first] = rows;
  if (first === undefined) return [];
  const ofShape = rows.filter(({ shape }) => shape === first.shape);
  const fastest = Math.max(...ofShape.map(({ perSecond }) => perSecond));
  // Serial, so that the server's clock does not count what waits for a processor.
  const serverUs = Math.min(...ofShape.map(({ serverUsPerCall }) => serverUsPerCall));
  const calls = Math.max(...rows.map(({ callsPerRequest }) => callsPerRequest));
  return [
    gate(`Valkey, ${first.shape}: ${whole(requestsPerSecondMin)} requests a second`, whole(fastest), fastest >= requestsPerSecondMin),
    gate(`Valkey, ${first.shape}: at most ${serverUsMax} µs of the server a call`, serverUs.toFixed(1), serverUs <= serverUsMax),
    gate(`at most ${callsPerRequestMax} calls a request`, calls.toFixed(3), calls <= callsPerRequestMax + 0.001),
  ];
}

function outageGate({ beyondPercent, replicas }: Outage): Gate {
  const demand = `${replicas} replicas without Valkey admit at most ${outageBeyondPercentMax} % beyond the limit`;
  return gate(demand, `${beyondPercent.toFixed(1)} %`, beyondPercent <= outageBeyondPercentMax);
}

function gate(demand: string, found: string, holds: boolean): Gate {
  return { demand, found, holds };
}

export function reportOf(findings: Findings, gates: readonly Gate[]): string {
  const { inMemory, inValkey = [], overInMemory, overInValkey, leaksInMemory, leaksInValkey, outage } = findings;
  const parts = [
    'Reserve and settle, 1,000 tenants in turn, the fastest of four rounds. In memory one at a time:',
    table(
      ['limits', 'requests/s', 'reserve p50 µs', 'p99', 'settle p50 µs', 'p99', 'requests a processor second'],
      inMemory.map((row) => [row.shape, ...paceCells(row), whole(1e6 / row.processorUsPerRequest)]),
    ),
  ];
  if (inValkey.length > 0) {
    const header = [
      'limits',
      'connections',
      'at once',
      'requests/s',
      'reserve p50 µs',
      'p99',
      'settle p50 µs',
      'p99',
      'server µs/call',
      'its processor µs/call',
      'requests its processor carries',
      'calls/request',
      'empty scripts/s',
    ];
    parts.push(
      'In one Valkey, client and server on the same machine. Beside it valkey-benchmark with an empty script, as many connections and calls at once: what the server and the wire allow without any limit.',
      table(header, inValkey.map(valkeyCells)),
      `An empty script is asked ${median(inValkey.map((row) => row.emptyScriptsPerSecond / (row.perSecond * row.callsPerRequest))).toFixed(1)} times as often as one of ours (median of the rows).`,
    );
  }
  for (const [where, over] of [
    ['memory', overInMemory],
    ['Valkey over 4 connections', overInValkey],
  ] as const) {
    if (over === undefined) continue;
    parts.push(
      `64 at once in ${where}: ${whole(over.asked)} asked, ${whole(over.admitted)} admitted, ${over.over} beyond the exact bucket, ${over.under} refused that fitted.`,
    );
  }
  for (const [where, leaks] of [
    ['memory', leaksInMemory],
    ['Valkey', leaksInValkey],
  ] as const) {
    if (leaks === undefined) continue;
    parts.push(
      `${whole(leaks.endings)} random endings in ${where}, ${whole(leaks.forgotten)} without a word and ${leaks.kills} processes killed: a lease later ${leaks.slotsHeld} slots, ${leaks.nanoUsdHeld} nano-dollars and ${leaks.leasesHeld} leases are held.`,
    );
  }
  if (outage !== undefined) {
    parts.push(
      `Valkey killed under ${outage.replicas} replicas: ${whole(outage.admitted)} tokens admitted of ${whole(outage.allowed)}; the longest wait for an answer ${outage.longestMs.toFixed(0)} ms.`,
    );
  }
  parts.push(
    table(
      ['demand', 'measured', 'verdict'],
      gates.map(({ demand, found, holds }) => [demand, found, holds ? 'holds' : 'MISSED']),
    ),
  );
  return parts.join('\n\n');
}

function paceCells(row: StorePace): readonly string[] {
  const us = (value: number) => value.toFixed(1);
  return [whole(row.perSecond), us(row.reserveP50Us), us(row.reserveP99Us), us(row.settleP50Us), us(row.settleP99Us)];
}

function valkeyCells(row: ValkeyCost): readonly (string | number)[] {
  const { shape, connections, inFlight, serverUsPerCall, serverProcessorUsPerCall, callsPerRequest, emptyScriptsPerSecond } = row;
  const carried = 1e6 / (serverProcessorUsPerCall * callsPerRequest);
  const server = [serverUsPerCall.toFixed(1), serverProcessorUsPerCall.toFixed(1), whole(carried), callsPerRequest.toFixed(3)];
  return [shape, connections, inFlight, ...paceCells(row), ...server, whole(emptyScriptsPerSecond)];
}
