// `npm run bulkhead -- <command>`: the command line of the checkout.
import { join } from 'node:path';
import { projectRoot, runAttached, setUp } from './set-up.mjs';

const node = await setUp();
process.exitCode = await runAttached(node, [join(projectRoot, 'platform/src/main.ts'), ...process.argv.slice(2)], { cwd: process.cwd() });
