/** The product as `bulkhead serve --config FILE --json` starts it, but for its queue: first come, first served. One argument: the configuration file. */
import { openApp } from '../../src/app.ts';
import { loadConfig, systemSources } from '../../src/config/load.ts';
import { createLogger } from '../../src/telemetry/logger.ts';
import { FirstComeQueue } from './first-come-queue.ts';

const loaded = loadConfig(systemSources(process.argv[2]));
const logger = createLogger(loaded.config.logging.level);
const app = await openApp({ loaded, logger, listen: true, openQueue: (options) => new FirstComeQueue(options) });
process.once('SIGTERM', () => void app.close().then(() => process.exit(0)));
process.stdout.write(`${JSON.stringify({ ready: true, baseUrl: app.baseUrl })}\n`);
