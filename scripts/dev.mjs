// `npm run dev`: serve, and start again when a source file changes.
import { join } from 'node:path';
import { projectRoot, runAttached, setUp } from './set-up.mjs';

const node = await setUp();
const main = join(projectRoot, 'platform/src/main.ts');
process.exitCode = await runAttached(node, ['--watch', '--watch-preserve-output', main, 'serve', ...process.argv.slice(2)]);
