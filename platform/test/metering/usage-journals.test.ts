import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';
import { FileUsageJournal } from '../../src/adapters/journal-file/usage-journal.ts';
import { MemoryUsageJournal } from '../../src/adapters/memory/usage-journal.ts';
import { silentLogger } from '../../src/telemetry/logger.ts';
import { usageJournalContract } from '../contracts/usage-journal.ts';

const root = mkdtempSync(join(tmpdir(), 'bulkhead-journals-'));
afterAll(() => rmSync(root, { recursive: true }));
let count = 0;
const newDirectory = () => join(root, String(++count));

usageJournalContract('the journal in memory', async (ledger) => new MemoryUsageJournal({ ledger }));
usageJournalContract('the journal on disk', (ledger) => FileUsageJournal.open({ directory: newDirectory(), ledger, logger: silentLogger }));
