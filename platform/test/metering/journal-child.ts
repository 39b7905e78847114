/**
 * A process that appends usage events until it is killed. It prints the id of every event whose append has returned; its ledger is
 * in the parent, reached by messages, so it outlives the process. Arguments: directory, number of the first event, seed, fault.
 */
import { writeSync } from 'node:fs';
import { FileUsageJournal } from '../../src/adapters/journal-file/usage-journal.ts';
import type { UsageEvent } from '../../src/metering/usage-event.ts';
import type { UsageJournal, UsageLedger } from '../../src/metering/usage-journal.ts';
import { seededRandom } from '../../src/primitives/random.ts';
import { silentLogger } from '../../src/telemetry/logger.ts';
import { usageEvent } from '../contracts/usage-events.ts';

const [directory = '', firstNumber = '1', seed = '1', fault = 'none'] = process.argv.slice(2);

// A parent that is gone would leave this process appending for ever.
process.once('disconnect', () => process.exit(1));

const ledgerOverThere: UsageLedger = {
  append: (events) =>
    new Promise((resolve) => {
      process.once('message', () => resolve());
      process.send?.(events.map(({ id }) => id));
    }),
};

const journal = await FileUsageJournal.open({
  directory,
  ledger: ledgerOverThere,
  logger: silentLogger,
  segmentBytesMax: 20_000,
  batchEventsMax: 20,
});
const append = fault === 'acknowledge before the write' ? appendLater(journal) : (event: UsageEvent) => journal.append(event);

void flushForever();
await appendForever();

async function appendForever(): Promise<never> {
  const random = seededRandom(Number(seed));
  for (let number = Number(firstNumber); ; ) {
    for (let burst = Math.floor(random.next() * 20); burst >= 0; burst--) {
      const event = usageEvent(number++);
      append(event);
      writeSync(1, `${event.id}\n`);
    }
    await new Promise((resolve) => setTimeout(resolve, random.next() < 0.2 ? 2 : 0));
  }
}

async function flushForever(): Promise<never> {
  for (;;) {
    await journal.flush();
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

/** The planted fault: the event is written soon, instead of now. */
function appendLater(target: UsageJournal): (event: UsageEvent) => void {
  return (event) => {
    setTimeout(() => target.append(event), 10);
  };
}
