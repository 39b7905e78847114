// The console is a client of the admin API with no privileges of its own. The token lives in this tab only.
const refreshEveryMs = 2_000;
const byId = (id) => document.getElementById(id);
let timer;

byId('sign-in').addEventListener('submit', (event) => {
  event.preventDefault();
  sessionStorage.setItem('adminToken', byId('token').value.trim());
  byId('token').value = '';
  void refresh();
});
byId('sign-out').addEventListener('click', () => {
  sessionStorage.removeItem('adminToken');
  showSignedIn(false);
  say('');
});
document.addEventListener('visibilitychange', () => {
  if (!document.hidden) void refresh();
});
void refresh();

async function refresh() {
  clearTimeout(timer);
  const token = sessionStorage.getItem('adminToken');
  if (token === null) return showSignedIn(false);
  try {
    const [tenants, usage, fairness] = await Promise.all(['tenants?limit=200', 'usage', 'fairness'].map((path) => get(path, token)));
    showSignedIn(true);
    showTenants(tenants.data, usage.data);
    showQueue(fairness.data);
    say(`${tenants.data.length} tenants · ${new Date().toLocaleTimeString()}`);
  } catch (error) {
    if (error.status === 401) sessionStorage.removeItem('adminToken');
    showSignedIn(error.status !== 401);
    say(error.message);
  }
  if (!document.hidden && sessionStorage.getItem('adminToken') !== null) timer = setTimeout(refresh, refreshEveryMs);
}

async function get(path, token) {
  const answer = await fetch(`/admin/v1/${path}`, { headers: { authorization: `Bearer ${token}` } });
  const body = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(`${body.error.message} (${body.error.request_id})`), { status: answer.status });
  return body;
}

function showSignedIn(signedIn) {
  byId('sign-in').hidden = signedIn;
  for (const id of ['tenants', 'queue', 'sign-out']) byId(id).hidden = !signedIn;
}

function showTenants(tenants, usage) {
  const usageOf = new Map(usage.map((row) => [row.tenant, row]));
  const rows = tenants.map((tenant) => {
    const used = usageOf.get(tenant.id);
    const count = (value) => ({ number: (value ?? 0).toLocaleString() });
    const cost = { number: used === undefined ? '0' : Number(used.cost_usd).toFixed(4) };
    return [tenant.name, tenant.tier, tenant.state, count(used?.requests), count(used?.input_tokens), count(used?.output_tokens), cost];
  });
  fill('tenants', rows);
}

function showQueue(pools) {
  const rows = pools.map((pool) => [
    pool.pool,
    { number: pool.in_flight },
    { number: pool.capacity },
    { number: pool.queued },
    pool.tenants.map((tenant) => `${tenant.tenant} ${tenant.in_flight}+${tenant.queued}`).join(', ') || 'none',
  ]);
  fill('queue', rows);
}

function fill(sectionId, rows) {
  const section = byId(sectionId);
  section.querySelector('.empty').hidden = rows.length > 0;
  section.querySelector('tbody').replaceChildren(...rows.map(rowElement));
}

// textContent only: a tenant's name is never markup.
function rowElement(cells) {
  const row = document.createElement('tr');
  for (const cell of cells) {
    const element = document.createElement('td');
    element.textContent = typeof cell === 'object' ? String(cell.number) : cell;
    if (typeof cell === 'object') element.className = 'number';
    row.append(element);
  }
  return row;
}

function say(text) {
  byId('status').textContent = text;
}
