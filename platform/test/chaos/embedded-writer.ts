/** Writes responses as acme and prints each id once the database has acknowledged it; killed by its parent. Argument: the data directory. */
import { openResponseCabinet } from '../../src/adapters/postgres/responses.ts';
import { openEmbeddedTestDatabase, principalOf } from '../support/embedded-database.ts';

const [, , dataDir = ''] = process.argv;
const db = await openEmbeddedTestDatabase({ dataDir });
const responses = openResponseCabinet(db.database.forTenant(principalOf('acme')));
const startedWith = Number(process.argv[3] ?? 0);
for (let index = startedWith; ; index++) {
  await responses.create({ id: `r${index}`, createdAtMs: 1, response: { index }, inputItems: [] });
  process.stdout.write(`${index}\n`);
}
