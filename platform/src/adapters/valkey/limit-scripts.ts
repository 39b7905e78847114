/**
 * What happens to limits inside Valkey, each script one atomic step over the keys of one tenant (one hash tag, one slot of a cluster). GCRA as in
 * `admission/limit-arithmetic.ts`; time is the server's own, in microseconds since 14 November 2023 (so that a double holds hundredths of one).
 *
 * A scope is a MessagePack list: the arrival times of its four rates, what is in flight, the period, what it has cost and what is set aside. A reservation is a
 * MessagePack map that outlives its end by a quarter of an hour, so that no id is admitted twice, and its lease by a day: it says what is to be given back, and a
 * scope lives on while its tenant comes. Texts that are packed, not hashes: a script's time goes into the commands it calls and the numbers it writes as text
 * (docs/rfd/0017-limit-tree.md). Replies write numbers by `%.0f` and `%.3f`: Lua's own conversion (%.14g) would lose microseconds.
 */
const common = `
local function now(given)
  if given ~= '' then return tonumber(given) end
  local t = redis.call('TIME')
  return (t[1] - 1700000000) * 1000000 + t[2]
end
local function whole(x) return string.format('%.0f', x) end
local function fine(x) return string.format('%.3f', x) end
local function opened(value)
  if value then return cmsgpack.unpack(value) end
  return {0, 0, 0, 0, 0, false, 0, 0}
end
local function keep(key, scope, at)
  local latest = math.max(at, scope[1], scope[2], scope[3], scope[4])
  redis.call('SET', key, cmsgpack.pack(scope), 'PX', whole(3600000 + (latest - at) / 1000))
end
`;

/**
 * KEYS: leases, reservation, scopes. ARGV: id, lease ms, now or '', share, cost, the four amounts; for each scope: slots or -1, budget or -1, whether it is
 * hard, period, what it has cost where that is known or '', the four rates or 0.
 * Replies `spent`; `load` and the numbers of the scopes whose spending must be told; or `denied` or `reserved`, the time, and eight fields a scope.
 */
export const reserveScript = `${common}
local at, share, cost = now(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local values = redis.call('MGET', unpack(KEYS, 2))
if values[1] then
  local old = cmsgpack.unpack(values[1])
  return old.state and {'spent'} or old.reply
end
local amount, found, rates, missing, refused = {}, {}, {}, {}, false
for d = 1, 4 do amount[d] = tonumber(ARGV[5 + d]) end
for n = 1, #KEYS - 2 do
  local o = 9 * n
  local h, rate = opened(values[1 + n]), {}
  found[n], rates[n] = h, rate
  local budget = tonumber(ARGV[o + 2])
  if budget >= 0 and h[6] ~= ARGV[o + 4] then
    if ARGV[o + 5] == '' then missing[#missing + 1] = n
    else h[6], h[7], h[8] = ARGV[o + 4], tonumber(ARGV[o + 5]), 0 end
  end
  for d = 1, 4 do
    local limit = tonumber(ARGV[o + 5 + d])
    rate[d] = limit
    if limit > 0 and amount[d] > 0 then
      local part = limit * share < 1 and 1 or share
      local tat = math.max(h[d], at) + amount[d] * 60000000 / limit
      if amount[d] > limit * part or tat - at - 60000000 * part > 0.5 then refused = true end
    end
  end
  local slots = tonumber(ARGV[o + 1])
  if slots >= 0 and h[5] >= math.max(1, math.floor(slots * share)) then refused = true end
  if budget >= 0 and ARGV[o + 3] == '1' and (h[7] >= budget or h[7] + h[8] + cost > budget) then refused = true end
end
if #missing > 0 then return {'load', unpack(missing)} end
local reply, periods = {refused and 'denied' or 'reserved', fine(at)}, {}
for n = 1, #found do
  local h, rate, counts = found[n], rates[n], tonumber(ARGV[9 * n + 2]) >= 0
  if not refused then
    for d = 1, 4 do
      if rate[d] > 0 then h[d] = math.max(h[d], at) + amount[d] * 60000000 / rate[d] end
    end
    h[5] = h[5] + 1
    if counts then h[8] = h[8] + cost end
    periods[n] = counts and h[6]
    keep(KEYS[2 + n], h, at)
  end
  for d = 1, 4 do reply[#reply + 1] = rate[d] > 0 and fine(h[d]) or '' end
  reply[#reply + 1] = whole(h[5])
  reply[#reply + 1] = counts and h[6] or ''
  reply[#reply + 1] = counts and whole(h[7]) or ''
  reply[#reply + 1] = counts and whole(h[8]) or ''
end
if refused then return reply end
local lease = tonumber(ARGV[2])
local record = {cost = cost, amounts = amount, rates = rates, periods = periods, keys = {unpack(KEYS, 3)}, reply = reply}
redis.call('SET', KEYS[2], cmsgpack.pack(record), 'PX', lease + 86400000)
redis.call('ZADD', KEYS[1], fine(at + lease * 1000), ARGV[1])
redis.call('PEXPIRE', KEYS[1], lease + 86400000)
return reply`;

/**
 * KEYS: leases, reservation, scopes. ARGV: id, `settle` or `reap`, now or '', cost, the four amounts that were really used (the first is the request).
 * Replies 1 when the reservation ended now, 2 when a reaped one was corrected, 0 when there is nothing to end, -1 when it is not there: one that has ended is, for a quarter of an hour.
 */
export const settleScript = `${common}
local id, mode, at, cost = ARGV[1], ARGV[2], now(ARGV[3]), tonumber(ARGV[4])
local values = redis.call('MGET', unpack(KEYS, 2))
if not values[1] then
  redis.call('ZREM', KEYS[1], id)
  return -1
end
local record = cmsgpack.unpack(values[1])
if record.state == 'done' or (record.state == 'reaped' and mode == 'reap') then return 0 end
local used = {}
for d = 1, 4 do used[d] = tonumber(ARGV[4 + d]) end
if mode == 'reap' then
  local expires = redis.call('ZSCORE', KEYS[1], id)
  if not expires or tonumber(expires) > at then return 0 end
  local progress = record.progress or {0, 0, 0, 0}
  used, cost = {1, progress[2], progress[3], progress[4]}, progress[1]
end
local isFirst = not record.state
for n = 1, #record.rates do
  local h, rate = opened(values[1 + n]), record.rates[n]
  for d = 2, 4 do
    local difference = used[d] - record.amounts[d]
    if rate[d] > 0 and difference ~= 0 then
      local tat = difference > 0 and math.max(h[d], at) or h[d]
      h[d] = tat + difference * 60000000 / rate[d]
    end
  end
  if isFirst then h[5] = math.max(0, h[5] - 1) end
  if record.periods[n] and h[6] == record.periods[n] then
    if isFirst then h[8] = h[8] - record.cost end
    h[7] = h[7] + cost - (isFirst and 0 or record.cost)
  end
  keep(KEYS[2 + n], h, at)
end
redis.call('ZREM', KEYS[1], id)
local keptFor = 900000
if mode == 'reap' then record.state, record.cost, record.amounts, record.reply, keptFor = 'reaped', cost, used, nil, 86400000
else record = {state = 'done'} end
redis.call('SET', KEYS[2], cmsgpack.pack(record), 'PX', keptFor)
return isFirst and 1 or 2`;

/** KEYS: leases, reservation. ARGV: id, lease ms, now or '', cost so far, tokens, input and output tokens so far. Replies 1, or 0 when there is no such lease. */
export const renewScript = `${common}
local at, value = now(ARGV[3]), redis.call('GET', KEYS[2])
if not value or not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 0 end
local record, progress = cmsgpack.unpack(value), {}
for i = 1, 4 do progress[i] = math.max(record.progress and record.progress[i] or 0, tonumber(ARGV[3 + i])) end
record.progress = progress
redis.call('SET', KEYS[2], cmsgpack.pack(record), 'PX', tonumber(ARGV[2]) + 86400000)
redis.call('ZADD', KEYS[1], fine(at + tonumber(ARGV[2]) * 1000), ARGV[1])
redis.call('PEXPIRE', KEYS[1], tonumber(ARGV[2]) + 86400000)
return 1`;

/** KEYS: reservation. Replies the keys of its scopes; none when it is not there. */
export const scopesScript = `
local value = redis.call('GET', KEYS[1])
return value and cmsgpack.unpack(value).keys or {}`;

/**
 * What was used while Valkey could not be asked, once for an id. KEYS: debt, scopes. ARGV: now or '', cost, the four amounts; for each scope: period or '', the four
 * rates or 0. A period that is not here is read from the ledger when it is needed, which has the cost already.
 */
export const chargeScript = `${common}
local at = now(ARGV[1])
if not redis.call('SET', KEYS[1], '1', 'NX', 'PX', 900000) then return 0 end
for n = 1, #KEYS - 1 do
  local o, key = 6 + (n - 1) * 5, KEYS[1 + n]
  local h = opened(redis.call('GET', key))
  for d = 1, 4 do
    local rate, amount = tonumber(ARGV[o + 1 + d]), tonumber(ARGV[2 + d])
    if rate > 0 then h[d] = math.max(h[d], at) + amount * 60000000 / rate end
  end
  if h[6] and h[6] == ARGV[o + 1] then h[7] = h[7] + tonumber(ARGV[2]) end
  keep(key, h, at)
end
return 1`;

/** KEYS: leases. ARGV: now or '', how many. Replies how many leases there are, and the ids of those that have run out, the oldest first. */
export const expiredScript = `${common}
local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', fine(now(ARGV[1])), 'LIMIT', 0, tonumber(ARGV[2]))
return {redis.call('ZCARD', KEYS[1]), unpack(ids)}`;
