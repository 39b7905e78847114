/** The Portkey gateway, the best known gateway that runs on Node, as a second yardstick. Installed when asked for; no dependency of the project. */
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { type RunningPart, startPart } from '../support/part.ts';
import type { Bench, Target } from './bench.ts';

export const portkeyVersion = '1.15.2';
const home = fileURLToPath(new URL('../../../.cache/portkey', import.meta.url));
const script = join(home, 'node_modules/@portkey-ai/gateway/build/start-server.js');
const installWithinMs = 120_000;

/** Undefined, with a word of why, when it cannot be installed here. */
export async function startPortkey(bench: Bench): Promise<{ readonly part: RunningPart; readonly target: Target } | undefined> {
  try {
    await install(bench.signal);
  } catch (error) {
    bench.say(`Portkey is left out: npm could not install it (${error instanceof Error ? error.message.split('\n')[0] : String(error)})`);
    return undefined;
  }
  const port = await freePort();
  const options = { name: 'Portkey', script, args: ['--headless', `--port=${port}`], cpus: bench.pinning.gateway, cwd: home };
  const part = await startPart(options, (line) => (line.includes('Ready for connections') ? `http://127.0.0.1:${port}` : undefined));
  const headers = {
    authorization: 'Bearer bench',
    'x-portkey-provider': 'openai',
    'x-portkey-custom-host': `${bench.upstream.url}/v1`,
  };
  return { part, target: { name: `Portkey ${portkeyVersion}`, url: part.url, headers, pid: part.pid } };
}

async function install(signal: AbortSignal): Promise<void> {
  if (existsSync(script)) return;
  mkdirSync(home, { recursive: true });
  const quiet = ['--no-audit', '--no-fund', '--ignore-scripts', '--loglevel=error', '--save-exact'];
  const args = ['install', '--prefix', home, ...quiet, `@portkey-ai/gateway@${portkeyVersion}`];
  await promisify(execFile)('npm', args, { cwd: home, signal, timeout: installWithinMs });
}

/** A port that was free a moment ago: Portkey does not say which one it took when given 0. */
function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => (address !== null && typeof address === 'object' ? resolve(address.port) : reject(new Error('no free port'))));
    });
  });
}
