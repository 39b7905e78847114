import { usageLedgerContract } from '../../../test/contracts/usage-ledger.ts';
import { MemoryUsageLedger } from './usage-ledger.ts';

usageLedgerContract('the ledger in memory', async () => {
  let ledger = new MemoryUsageLedger();
  return {
    ledger: { append: (events) => ledger.append(events) },
    stored: async () => ledger.events,
    clear: async () => {
      ledger = new MemoryUsageLedger();
    },
    close: async () => {},
  };
});
