/**
 * What happens to limits inside Valkey, each script one atomic step over the keys of one tenant (one hash tag, one slot of a cluster). GCRA as in
 * `admission/limit-arithmetic.ts`; time is the server's own, in microseconds since 14 November 2023 (so that a double holds hundredths of one).
 *
 * A scope is a hash: `t1` to `t4` the arrival times of its rates, `c` what is in flight, `p`, `s`, `r` the period, what it has cost and what is set aside.
 * A reservation is a hash that outlives its end by a quarter of an hour, so that no id is admitted twice, and its lease by a day: it says what is to be given back,
 * and a scope's hash lives on while its tenant comes. Numbers are written by `%.0f` and `%.3f`: Lua's own
 * conversion (%.14g) would lose microseconds.
 */
const common = `
local function now(given)
  if given ~= '' then return tonumber(given) end
  local t = redis.call('TIME')
  return (t[1] - 1700000000) * 1000000 + t[2]
end
local function whole(x) return string.format('%.0f', x) end
local function fine(x) return string.format('%.3f', x) end
local fields = {'t1', 't2', 't3', 't4', 'c', 'p', 's', 'r'}
local function dump(reply, h)
  for i = 1, 8 do reply[#reply + 1] = h[i] or '' end
end
`;

/**
 * KEYS: leases, reservation, scopes. ARGV: id, lease ms, now or '', share, cost, the four amounts; for each scope: slots or -1, budget or -1, whether it is
 * hard, period, what it has cost where that is known or '', the four rates or 0.
 * Replies `spent`; `load` and the numbers of the scopes whose spending must be told; or `denied` or `reserved`, the time, and eight fields a scope.
 */
export const reserveScript = `${common}
local id, lease, at = ARGV[1], tonumber(ARGV[2]), now(ARGV[3])
local share, cost = tonumber(ARGV[4]), tonumber(ARGV[5])
local scopes, first, stride = #KEYS - 2, 9, 9
local old = redis.call('HMGET', KEYS[2], 'reply', 'state')
if old[2] then return {'spent'} end
if old[1] then return cjson.decode(old[1]) end
local amount, found, missing, refused = {}, {}, {}, false
for d = 1, 4 do amount[d] = tonumber(ARGV[5 + d]) end
for n = 1, scopes do
  local o = first + (n - 1) * stride
  local h = redis.call('HMGET', KEYS[2 + n], unpack(fields))
  found[n] = h
  if tonumber(ARGV[o + 2]) >= 0 and h[6] ~= ARGV[o + 4] then
    if ARGV[o + 5] == '' then missing[#missing + 1] = n
    else h[6], h[7], h[8] = ARGV[o + 4], ARGV[o + 5], '0' end
  end
end
if #missing > 0 then return {'load', unpack(missing)} end
for n = 1, scopes do
  local o, h = first + (n - 1) * stride, found[n]
  for d = 1, 4 do
    local rate = tonumber(ARGV[o + 5 + d])
    if rate > 0 and amount[d] > 0 then
      local part = rate * share < 1 and 1 or share
      local tat = math.max(tonumber(h[d] or 0), at) + amount[d] * 60000000 / rate
      if amount[d] > rate * part or tat - at - 60000000 * part > 0.5 then refused = true end
    end
  end
  local slots = tonumber(ARGV[o + 1])
  if slots >= 0 and tonumber(h[5] or 0) >= math.max(1, math.floor(slots * share)) then refused = true end
  local budget = tonumber(ARGV[o + 2])
  if budget >= 0 and ARGV[o + 3] == '1' then
    local spent, aside = tonumber(h[7]), tonumber(h[8])
    if spent >= budget or spent + aside + cost > budget then refused = true end
  end
end
local reply = {refused and 'denied' or 'reserved', fine(at)}
if not refused then
  local record = {'cost', whole(cost), 'scopes', scopes}
  for n = 1, scopes do
    local o, h = first + (n - 1) * stride, found[n]
    local latest, kept = at, {}
    for d = 1, 4 do
      local rate = tonumber(ARGV[o + 5 + d])
      kept[d] = ARGV[o + 5 + d]
      if rate > 0 then h[d] = fine(math.max(tonumber(h[d] or 0), at) + amount[d] * 60000000 / rate) end
      latest = math.max(latest, tonumber(h[d] or 0))
    end
    h[5] = whole(tonumber(h[5] or 0) + 1)
    local counts = tonumber(ARGV[o + 2]) >= 0
    if counts then h[8] = whole(tonumber(h[8]) + cost) end
    local write = {}
    for i = 1, 8 do if h[i] then write[#write + 1] = fields[i]; write[#write + 1] = h[i] end end
    redis.call('HSET', KEYS[2 + n], unpack(write))
    redis.call('PEXPIRE', KEYS[2 + n], whole(3600000 + (latest - at) / 1000))
    record[#record + 1] = 'r' .. n; record[#record + 1] = table.concat(kept, '|')
    record[#record + 1] = 'p' .. n; record[#record + 1] = counts and ARGV[o + 4] or ''
    record[#record + 1] = 'k' .. n; record[#record + 1] = KEYS[2 + n]
  end
  for d = 1, 4 do record[#record + 1] = 'a' .. d; record[#record + 1] = ARGV[5 + d] end
  for n = 1, scopes do dump(reply, found[n]) end
  record[#record + 1] = 'reply'; record[#record + 1] = cjson.encode(reply)
  redis.call('HSET', KEYS[2], unpack(record))
  redis.call('PEXPIRE', KEYS[2], lease + 86400000)
  redis.call('ZADD', KEYS[1], fine(at + lease * 1000), id)
  redis.call('PEXPIRE', KEYS[1], lease + 86400000)
else
  for n = 1, scopes do dump(reply, found[n]) end
end
return reply`;

/**
 * KEYS: leases, reservation, scopes. ARGV: id, `settle` or `reap`, now or '', cost, the four amounts that were really used (the first is the request).
 * Replies 1 when the reservation ended now, 2 when a reaped one was corrected, 0 when there is nothing to end.
 */
export const settleScript = `${common}
local id, mode, at, cost = ARGV[1], ARGV[2], now(ARGV[3]), tonumber(ARGV[4])
local flat = redis.call('HGETALL', KEYS[2])
if #flat == 0 then
  redis.call('ZREM', KEYS[1], id)
  return 0
end
local h = {}
for i = 1, #flat, 2 do h[flat[i]] = flat[i + 1] end
if h.state == 'done' or (h.state == 'reaped' and mode == 'reap') then return 0 end
local used = {}
for d = 1, 4 do used[d] = tonumber(ARGV[4 + d]) end
if mode == 'reap' then
  local expires = redis.call('ZSCORE', KEYS[1], id)
  if not expires or tonumber(expires) > at then return 0 end
  for d = 2, 4 do used[d] = tonumber(h['g' .. d] or 0) end
  cost = tonumber(h.gc or 0)
end
local isFirst = h.state == nil
for n = 1, tonumber(h.scopes) do
  local key, g = KEYS[2 + n], redis.call('HMGET', KEYS[2 + n], unpack(fields))
  local write, latest, d = {}, at, 0
  for text in string.gmatch(h['r' .. n], '[^|]+') do
    d = d + 1
    local rate, difference = tonumber(text), used[d] - tonumber(h['a' .. d])
    if d > 1 and rate > 0 and difference ~= 0 then
      local tat = tonumber(g[d] or 0)
      if difference > 0 then tat = math.max(tat, at) end
      tat = tat + difference * 60000000 / rate
      latest = math.max(latest, tat)
      write[#write + 1] = fields[d]; write[#write + 1] = fine(tat)
    end
  end
  if isFirst and g[5] then write[#write + 1] = 'c'; write[#write + 1] = whole(math.max(0, tonumber(g[5]) - 1)) end
  if h['p' .. n] ~= '' and g[6] == h['p' .. n] then
    local before = tonumber(h.cost)
    if isFirst then write[#write + 1] = 'r'; write[#write + 1] = whole(tonumber(g[8]) - before); before = 0 end
    write[#write + 1] = 's'; write[#write + 1] = whole(tonumber(g[7]) + cost - before)
  end
  if #write > 0 then
    redis.call('HSET', key, unpack(write))
    redis.call('PEXPIRE', key, whole(3600000 + (latest - at) / 1000))
  end
end
redis.call('ZREM', KEYS[1], id)
local record = {'state', mode == 'reap' and 'reaped' or 'done', 'cost', whole(cost)}
for d = 2, 4 do record[#record + 1] = 'a' .. d; record[#record + 1] = whole(used[d]) end
redis.call('HSET', KEYS[2], unpack(record))
redis.call('PEXPIRE', KEYS[2], 900000)
return isFirst and 1 or 2`;

/** KEYS: leases, reservation. ARGV: id, lease ms, now or '', cost so far, tokens, input and output tokens so far. Replies 1, or 0 when there is no such lease. */
export const renewScript = `${common}
local at = now(ARGV[3])
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 0 end
local h = redis.call('HMGET', KEYS[2], 'gc', 'g2', 'g3', 'g4')
local write, names = {}, {'gc', 'g2', 'g3', 'g4'}
for i = 1, 4 do write[#write + 1] = names[i]; write[#write + 1] = whole(math.max(tonumber(h[i] or 0), tonumber(ARGV[3 + i]))) end
redis.call('HSET', KEYS[2], unpack(write))
redis.call('PEXPIRE', KEYS[2], tonumber(ARGV[2]) + 86400000)
redis.call('ZADD', KEYS[1], fine(at + tonumber(ARGV[2]) * 1000), ARGV[1])
redis.call('PEXPIRE', KEYS[1], tonumber(ARGV[2]) + 86400000)
return 1`;

/**
 * What was used while Valkey could not be asked, once for an id. KEYS: debt, scopes. ARGV: now or '', cost, the four amounts; for each scope: period or '', the four
 * rates or 0. A period that is not here is read from the ledger when it is needed, which has the cost already.
 */
export const chargeScript = `${common}
local at = now(ARGV[1])
if not redis.call('SET', KEYS[1], '1', 'NX', 'PX', 900000) then return 0 end
for n = 1, #KEYS - 1 do
  local o, key = 6 + (n - 1) * 5, KEYS[1 + n]
  local h = redis.call('HMGET', key, unpack(fields))
  local write, latest = {}, at
  for d = 1, 4 do
    local rate, amount = tonumber(ARGV[o + 1 + d]), tonumber(ARGV[2 + d])
    if rate > 0 and amount > 0 then
      local tat = math.max(tonumber(h[d] or 0), at) + amount * 60000000 / rate
      latest = math.max(latest, tat)
      write[#write + 1] = fields[d]; write[#write + 1] = fine(tat)
    end
  end
  local period = ARGV[o + 1]
  if period ~= '' and h[6] == period then write[#write + 1] = 's'; write[#write + 1] = whole(tonumber(h[7]) + tonumber(ARGV[2])) end
  if #write > 0 then
    redis.call('HSET', key, unpack(write))
    redis.call('PEXPIRE', key, whole(3600000 + (latest - at) / 1000))
  end
end
return 1`;

/** KEYS: leases. ARGV: now or '', how many. Replies how many leases there are, and the ids of those that have run out, the oldest first. */
export const expiredScript = `${common}
local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', fine(now(ARGV[1])), 'LIMIT', 0, tonumber(ARGV[2]))
return {redis.call('ZCARD', KEYS[1]), unpack(ids)}`;
