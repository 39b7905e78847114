// Real servers for tests, on loopback and free ports: PostgreSQL 17 with pgvector, PgBouncer and Valkey 8, out of a Debian trixie folder made once for a machine, and Redis 7 out of
// a bookworm one.
// Needs root on Debian (debootstrap, chroot). Elsewhere: TEST_DATABASE_URL, a superuser's URL of a PostgreSQL 16 or newer with pgvector 0.8 or newer.
import { execFile, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { homedir } from 'node:os';
import { join } from 'node:path';

const folders = {
  servers: {
    suite: 'trixie',
    version: 'trixie-1',
    packages: ['postgresql-17', 'postgresql-17-pgvector', 'pgbouncer', 'valkey-server'],
    holds: 'PostgreSQL 17, pgvector, PgBouncer and Valkey',
  },
  redis: { suite: 'bookworm', version: 'bookworm-redis-1', packages: ['redis-server'], holds: 'Redis 7' },
};
const bin = '/usr/lib/postgresql/17/bin';

/** Why there can be no servers here, as a sentence with what to do; undefined when there can be. */
export function whyNoServers() {
  if (process.env.TEST_DATABASE_URL !== undefined || existsSync(rootFolder()))
    return isRoot() || process.env.TEST_DATABASE_URL ? undefined : needsRoot;
  if (!isRoot()) return needsRoot;
  return existsSync('/etc/debian_version') ? undefined : needsRoot;
}

const needsRoot =
  'Tests on a real PostgreSQL need root on Debian, or TEST_DATABASE_URL: a superuser of a PostgreSQL 16 or newer with pgvector 0.8 or newer, ' +
  'for example `docker run -e POSTGRES_PASSWORD=test -p 5432:5432 pgvector/pgvector:pg17` and TEST_DATABASE_URL=postgres://postgres:test@127.0.0.1:5432/postgres.';

/** A PostgreSQL server with these settings besides the tests'; `url` is its superuser's. `isFresh`: one where nobody has made a role yet, whatever TEST_DATABASE_URL says. */
export async function startPostgres({ isFresh = false, settings: wanted = {} } = {}) {
  if (process.env.TEST_DATABASE_URL !== undefined && !isFresh) return { url: process.env.TEST_DATABASE_URL, stop: async () => {} };
  const root = serversRoot();
  const home = `/var/lib/bulkhead-tests/pg-${process.pid}-${Date.now()}`;
  inside(root, 'root', ['install', '-d', '-o', 'postgres', '-g', 'postgres', '-m', '0700', home]);
  inside(root, 'postgres', [
    `${bin}/initdb`,
    '-D',
    `${home}/data`,
    '-U',
    'postgres',
    '--auth=trust',
    '--encoding=UTF8',
    '--locale=C.UTF-8',
    '--no-sync',
  ]);
  const port = await freePort();
  const settings = {
    listen_addresses: '127.0.0.1',
    unix_socket_directories: '',
    port,
    max_connections: 200,
    shared_buffers: '128MB',
    // A chroot without /dev/shm.
    dynamic_shared_memory_type: 'mmap',
    // The tests' own data, gone with them.
    fsync: 'off',
    full_page_writes: 'off',
    synchronous_commit: 'off',
    ...wanted,
  };
  const options = Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
  const server = enter(root, 'postgres', [`${bin}/postgres`, '-D', `${home}/data`, ...options]);
  await untilReady(server, () => succeeds(root, 'postgres', [`${bin}/pg_isready`, '-q', '-h', '127.0.0.1', '-p', String(port)]));
  return {
    url: `postgres://postgres@127.0.0.1:${port}/postgres`,
    async stop() {
      // Fast shutdown: running statements are ended.
      await endOf(server, 'SIGINT');
      rmSync(join(root, home), { recursive: true, force: true });
    },
  };
}

/** A PgBouncer in transaction mode in front of a server, for these logins. `url` is the server's with another port. */
export async function startPgBouncer(serverUrl, { users, port: wantedPort }) {
  const root = serversRoot();
  const target = new URL(serverUrl);
  const home = `/var/lib/bulkhead-tests/bouncer-${process.pid}-${Date.now()}`;
  inside(root, 'root', ['install', '-d', '-o', 'postgres', '-g', 'postgres', '-m', '0700', home]);
  const port = wantedPort ?? (await freePort());
  const lines = [
    '[databases]',
    `* = host=${target.hostname} port=${target.port}`,
    '[pgbouncer]',
    'listen_addr = 127.0.0.1',
    `listen_port = ${port}`,
    'unix_socket_dir =',
    'auth_type = trust',
    `auth_file = ${home}/users`,
    'pool_mode = transaction',
    'default_pool_size = 8',
    'max_client_conn = 200',
    'ignore_startup_parameters = extra_float_digits',
  ];
  const list = users.map((user) => `"${user}" ""`);
  const file = (name, content) => `printf '%s\\n' ${content.map((line) => `'${line}'`).join(' ')} > ${home}/${name}`;
  const write = `${file('pgbouncer.ini', lines)}; ${file('users', list)}`;
  inside(root, 'postgres', ['sh', '-c', write]);
  const bouncer = enter(root, 'postgres', ['/usr/sbin/pgbouncer', `${home}/pgbouncer.ini`]);
  await untilReady(bouncer, () => succeeds(root, 'postgres', [`${bin}/pg_isready`, '-q', '-h', '127.0.0.1', '-p', String(port)]));
  const url = new URL(serverUrl);
  url.port = String(port);
  return {
    url: url.href,
    async stop() {
      await endOf(bouncer, 'SIGINT');
      rmSync(join(root, home), { recursive: true, force: true });
    },
  };
}

/**
 * An empty Valkey that keeps nothing on disk. `port`: where an earlier one was. `isCluster`: the only node of a cluster, with all slots. `replicaOf`: the port of another one, whose
 * copy it is. TEST_SHARED_STORE=redis: a Redis 7 in its place.
 */
export async function startValkey({ port: wantedPort, isCluster = false, replicaOf } = {}) {
  if (process.env.TEST_VALKEY_URL !== undefined && wantedPort === undefined && !isCluster && replicaOf === undefined)
    return { url: process.env.TEST_VALKEY_URL, stop: async () => {} };
  const isRedis = process.env.TEST_SHARED_STORE === 'redis';
  const name = isRedis ? 'redis' : 'valkey';
  const root = serversRoot(isRedis ? 'redis' : 'servers');
  const port = wantedPort ?? (await freePort());
  const settings = ['--port', port, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', '/tmp', '--loglevel', 'warning'];
  if (isCluster) settings.push('--cluster-enabled', 'yes', '--cluster-config-file', `/tmp/nodes-${port}.conf`);
  if (replicaOf !== undefined) settings.push('--replicaof', '127.0.0.1', replicaOf);
  const server = enter(root, name, [`/usr/bin/${name}-server`, ...settings.map(String)]);
  await untilReady(server, () => succeeds(root, name, [`/usr/bin/${name}-cli`, '-p', String(port), 'ping']));
  if (isCluster) inside(root, name, [`/usr/bin/${name}-cli`, '-p', String(port), 'cluster', 'addslotsrange', '0', '16383']);
  return {
    url: `redis://127.0.0.1:${port}`,
    port,
    pid: server.pid,
    /** Runs valkey-benchmark against it; resolves with what it printed. */
    benchmark(args) {
      const [file, rest] = chrooted(root, name, [`/usr/bin/${name}-benchmark`, '-p', String(port), ...args.map(String)]);
      return output(file, rest);
    },
    async stop(signal = 'SIGTERM') {
      await endOf(server, signal);
    },
  };
}

function rootFolder(folder = 'servers') {
  return join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'bulkhead', `servers-${folders[folder].version}`);
}

/** Makes the folder if it is not there, 20 to 40 s. Two makers do no harm: the first to finish wins. */
function serversRoot(folder = 'servers') {
  const problem = whyNoServers();
  if (problem !== undefined) throw new Error(problem);
  const root = rootFolder(folder);
  if (existsSync(root)) return root;
  const { suite, packages, holds } = folders[folder];
  process.stderr.write(`  installing ${holds} for the tests (once, about 40 s)\n`);
  mkdirSync(join(root, '..'), { recursive: true });
  const making = `${root}.${process.pid}`;
  if (spawnSync('debootstrap', ['--version']).error) {
    command('apt-get', ['update', '-qq']);
    command('apt-get', ['install', '-y', '-qq', 'debootstrap']);
  }
  try {
    command('debootstrap', ['--variant=minbase', `--include=${packages.join(',')}`, suite, making, mirror()]);
    renameSync(making, root);
  } catch (error) {
    if (!existsSync(root)) throw error;
  } finally {
    rmSync(making, { recursive: true, force: true });
  }
  return root;
}

/** Where this machine gets its own packages from. */
function mirror() {
  const folder = '/etc/apt/sources.list.d';
  const files = ['/etc/apt/sources.list', ...(existsSync(folder) ? readdirSync(folder).map((name) => join(folder, name)) : [])];
  const text = files.filter((file) => existsSync(file)).map((file) => readFileSync(file, 'utf8'));
  const found = /^(?:URIs:\s*|deb\s+(?:\[[^\]]*\]\s*)?)(https?:\/\/\S+)/m.exec(text.join('\n'));
  if (!found) throw new Error('There is no Debian mirror in the apt sources of this machine. Set TEST_DATABASE_URL instead.');
  return found[1];
}

function isRoot() {
  return process.getuid?.() === 0;
}

function chrooted(root, user, args) {
  return ['chroot', [`--userspec=${user}:${user}`, root, ...args]];
}

/** However this process ends, its servers end with it. */
const entered = new Set();
process.once('exit', () => {
  for (const child of entered) child.kill('SIGKILL');
});

function enter(root, user, args) {
  const [file, rest] = chrooted(root, user, args);
  const child = spawn(file, rest, { stdio: ['ignore', 'pipe', 'pipe'], cwd: '/' });
  child.said = '';
  entered.add(child);
  child.once('exit', () => entered.delete(child));
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk) => {
      child.said = (child.said + chunk).slice(-4_000);
    });
  }
  return child;
}

function inside(root, user, args) {
  command(...chrooted(root, user, args));
}

function succeeds(root, user, args) {
  const [file, rest] = chrooted(root, user, args);
  return spawnSync(file, rest, { cwd: '/' }).status === 0;
}

function command(file, args) {
  const result = spawnSync(file, args, { encoding: 'utf8', cwd: '/', maxBuffer: 64 * 1_024 * 1_024 });
  if (result.status !== 0)
    throw new Error(`${file} ${args[0]} failed: ${result.error?.message ?? ''}${(result.stdout + result.stderr).slice(-2_000)}`);
}

function output(file, args) {
  return new Promise((resolve, reject) => {
    execFile(file, args, { cwd: '/' }, (error, stdout) => (error === null ? resolve(stdout) : reject(error)));
  });
}

async function untilReady(child, isReady) {
  for (let attempt = 0; attempt < 300; attempt++) {
    if (child.exitCode !== null) break;
    if (isReady()) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  child.kill('SIGKILL');
  throw new Error(`a server for the tests did not start:\n${child.said}`);
}

async function endOf(child, signal) {
  // Killed by a signal it has no exit code.
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise((resolve) => child.once('exit', resolve));
  child.kill(signal);
  const timer = setTimeout(() => child.kill('SIGKILL'), 10_000);
  await ended;
  clearTimeout(timer);
}

function freePort() {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}
