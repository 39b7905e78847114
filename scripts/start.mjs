// `npm start`: install what is missing, then serve.
import { join } from 'node:path';
import { projectRoot, runAttached, setUp } from './set-up.mjs';

const node = await setUp();
process.exitCode = await runAttached(node, [join(projectRoot, 'platform/src/main.ts'), 'serve', ...process.argv.slice(2)]);
