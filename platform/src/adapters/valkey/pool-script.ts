/**
 * What happens to a pool's permits and virtual times inside Valkey: one script, one atomic step over three keys of the pool (one hash tag, one slot of a cluster). Time is the
 * server's own. Most of what a call takes is Lua's, so records are packed, lists are flat, numbers stay numbers (the server writes whole ones as they are, where Lua's own conversion,
 * `%.14g`, would lose units of virtual time), and nothing is written that has not changed (docs/rfd/0019-shared-permits.md).
 *
 * KEYS: pool, packed (era, capacity, learning until when, the times of the three levels, when its keys were last given a day more, where the sweep of the times is); replicas, a hash
 * (a record each); times, a hash (flow -> virtual time). A flow that is not there is at its level's time.
 * ARGV: replica, now or '', four times in ms (lease, waiting, placeholder, learning), capacity, whether it is new, permits for batch work, part, held, running, running batch
 * work, granted, number, name of the channels, pool, how many charges and heads; each charge (level from 1 to 3, flow, whether it has begun, charged before its start or '', units,
 * credit); each head (class, 2 or 3, flow, units of the next request for the tenant and for the class, queued).
 * Replies era, capacity, granted, lost, whether permits are wanted, free, spare, whether it is learning; replicas, running, batch work and waiting elsewhere; the times of the
 * levels, of the classes, of the charges, of the heads.
 *
 * Who is granted a permit: of the classes with waiting requests the one with less virtual time, of its tenants the one with the least, wherever it waits; at a tie the replica
 * with fewer permits. What is granted is promised: it counts as charged until the replica confirms it, and with that says what was charged.
 *
 * Published: the pool to `<channels>:wanted` when somebody waits, and to `<channels>:granted:<replica>` its grants, the number of its charges that count, the times of the
 * classes and of its heads without what it was promised itself, the pool.
 *
 * A record: the nine numbers below; heads (class, flow, two units, left); promises (class, flow, two units, grant), both flat; how many wait in its heads.
 */
export const poolScript = `
local me, at = ARGV[1], tonumber(ARGV[2])
if not at then
  local t = redis.call('TIME')
  at = t[1] * 1000 + math.floor(t[2] / 1000)
end
local n = {}
for i = 3, 15 do n[i] = tonumber(ARGV[i]) end
local leaseFor, waitingFor, placeFor, learnFor = n[3], n[4], n[5], n[6]
local batchMax, part, number = n[9], n[10], n[15]
local channel, pool, charges, heads = ARGV[16], ARGV[17], tonumber(ARGV[18]), tonumber(ARGV[19])
local LEASE, WAITING, PLACE, HELD, RUNNING, BATCH, GRANTED, SEEN, NUMBER, HEADS, PROMISED, LEFT = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12
local format, max = string.format, math.max
local function whole(x) return format('%.0f', x) end

local kept = redis.call('GET', KEYS[1])
local p = kept and cmsgpack.unpack(kept) or {whole(at), n[7], at + learnFor, 0, 0, 0, 0, '0'}
local era, capacity, learning, time = p[1], p[2], p[3], {p[4], p[5], p[6]}
if ARGV[8] == '1' then capacity = n[7] end

local replicas, order, changed = {}, {}, {}
local function confirm(r)
  local all, seen, open = r[PROMISED], r[SEEN], {}
  for i = 1, #all, 5 do
    if all[i + 4] > seen then
      local o = #open
      open[o + 1], open[o + 2], open[o + 3], open[o + 4], open[o + 5] = all[i], all[i + 1], all[i + 2], all[i + 3], all[i + 4]
    end
  end
  r[PROMISED] = open
end
local packed = redis.call('HGETALL', KEYS[2])
for i = 1, #packed, 2 do
  local name, r = packed[i], cmsgpack.unpack(packed[i + 1])
  if r[LEASE] <= at then
    redis.call('HDEL', KEYS[2], name)
  else
    if r[WAITING] <= at then r[HEADS], r[LEFT] = {}, 0 end
    if r[GRANTED] > r[SEEN] and r[PLACE] <= at then r[SEEN] = r[GRANTED]; confirm(r); changed[name] = true end
    replicas[name] = r
    order[#order + 1] = name
  end
end
local r, lost = replicas[me], 0
local wasWaiting = r and r[LEFT] > 0
if not r then
  r = {0, 0, 0, 0, 0, 0, n[14], n[14], 0, {}, {}, 0}
  replicas[me] = r
  order[#order + 1] = me
end
table.sort(order)
changed[me] = true
if n[14] < r[SEEN] then lost = r[SEEN] - n[14] else r[SEEN] = n[14] end
r[GRANTED] = max(r[GRANTED], r[SEEN])
r[LEASE], r[WAITING], r[PLACE] = at + leaseFor, at + waitingFor, at + placeFor
r[HELD], r[RUNNING], r[BATCH] = n[11], n[12], n[13]
confirm(r)
local mine, fields, levelOf, left, begins = {}, {'classes:interactive', 'classes:batch'}, {1, 1}, 0, false
r[HEADS] = mine
local first = 20
local firstHead = first + 6 * charges
for i = 0, charges - 1 do
  fields[3 + i], levelOf[3 + i] = ARGV[first + 6 * i + 1], tonumber(ARGV[first + 6 * i])
  begins = begins or ARGV[first + 6 * i + 2] == '1'
end
for i = 0, heads - 1 do
  local o, k = firstHead + 5 * i, 5 * i
  local class, field = tonumber(ARGV[o]), ARGV[o + 1]
  fields[#fields + 1], levelOf[#levelOf + 1] = field, class
  local queued = tonumber(ARGV[o + 4])
  mine[k + 1], mine[k + 2], mine[k + 3], mine[k + 4], mine[k + 5] = class, field, tonumber(ARGV[o + 2]), tonumber(ARGV[o + 3]), queued
  left = left + queued
end
r[LEFT] = left
local replied, waits = #fields, {}
local asked = replied
for i = 1, #order do
  local list = order[i] ~= me and replicas[order[i]][HEADS] or {}
  for k = 2, #list, 5 do asked = asked + 1; fields[asked] = list[k] end
  for k = 1, begins and #list or 0, 5 do
    if list[k + 4] > 0 then waits[list[k + 1]] = true; waits[list[k] == 2 and 'classes:interactive' or 'classes:batch'] = true end
  end
end
local found, value = redis.call('HMGET', KEYS[3], unpack(fields)), {}
for i = 1, asked do
  if found[i] then value[fields[i]] = tonumber(found[i]) end
end
if number > r[NUMBER] and charges > 0 then
  local writes = {}
  for i = 0, charges - 1 do
    local o = first + 6 * i
    local level, field, units = levelOf[3 + i], fields[3 + i], tonumber(ARGV[o + 4])
    local v = value[field] or time[level]
    if ARGV[o + 2] == '1' and v < time[level] and not waits[field] then v = time[level] end
    if ARGV[o + 3] ~= '' then time[level] = max(time[level], v + tonumber(ARGV[o + 3])) end
    if units < 0 then value[field] = max(v + units, math.min(v, time[level] - tonumber(ARGV[o + 5])))
    else value[field] = v + units end
    writes[#writes + 1] = field
    writes[#writes + 1] = value[field]
  end
  redis.call('HSET', KEYS[3], unpack(writes))
end
r[NUMBER] = max(number, r[NUMBER])

if max(time[1], time[2], time[3]) > 2 ^ 50 then
  redis.call('DEL', KEYS[3])
  era, value, time = whole(at), {}, {0, 0, 0}
  for i = 1, #order do replicas[order[i]][HEADS], replicas[order[i]][PROMISED], replicas[order[i]][LEFT] = {}, {}, 0; changed[order[i]] = true end
end

local promised = {}
local function promise(class, field, units, work)
  promised[field] = (promised[field] or 0) + units
  local level = class == 2 and 'classes:interactive' or 'classes:batch'
  promised[level] = (promised[level] or 0) + work
end
for i = 1, #order do
  local list = order[i] ~= me and replicas[order[i]][PROMISED] or {}
  for k = 1, #list, 5 do promise(list[k], list[k + 1], list[k + 2], list[k + 3]) end
end
local replies = {}
for i = 1, replied do
  local field = fields[i]
  replies[i] = (value[field] or time[levelOf[i]]) + (promised[field] or 0)
end
local own = r[PROMISED]
for k = 1, #own, 5 do promise(own[k], own[k + 1], own[k + 2], own[k + 3]) end

local function permitsOf(x) return x[HELD] + x[GRANTED] - x[SEEN] end
local isLearning, used, batch = at < learning, 0, 0
for i = 1, #order do
  local x = replicas[order[i]]
  used = used + permitsOf(x)
  batch = batch + x[BATCH]
end
local free = capacity - used
local function tagOf(level, field) return (value[field] or time[level]) + (promised[field] or 0) end
-- Of each class the place of its next head, its time, its replica.
local function nextOfBoth()
  local best, bestTag, bestOf = {}, {}, {}
  for i = 1, #order do
    local name = order[i]
    local x = replicas[name]
    if x[LEFT] > 0 and (not isLearning or (name == me and permitsOf(r) < part)) then
      local list = x[HEADS]
      for k = 1, #list, 5 do
        if list[k + 4] > 0 then
          local class, field = list[k], list[k + 1]
          local tag, least = (value[field] or time[class]) + (promised[field] or 0), bestTag[class]
          if not least or tag < least or (tag == least and permitsOf(x) < permitsOf(replicas[bestOf[class]])) then
            best[class], bestTag[class], bestOf[class] = k, tag, name
          end
        end
      end
    end
  end
  return best, bestOf
end
local told = {}
while free > 0 do
  local best, bestOf = nextOfBoth()
  local class = best[2] and 2
  if best[3] and batch < batchMax and (not class or tagOf(1, 'classes:batch') < tagOf(1, 'classes:interactive')) then class = 3 end
  if not class then break end
  local k, name = best[class], bestOf[class]
  local x = replicas[name]
  local list, kept = x[HEADS], x[PROMISED]
  local o = #kept
  list[k + 4] = list[k + 4] - 1
  x[LEFT] = x[LEFT] - 1
  x[GRANTED] = x[GRANTED] + 1
  x[PLACE] = at + placeFor
  kept[o + 1], kept[o + 2], kept[o + 3], kept[o + 4], kept[o + 5] = list[k], list[k + 1], list[k + 2], list[k + 3], x[GRANTED]
  promise(list[k], list[k + 1], list[k + 2], list[k + 3])
  if list[k] == 3 then x[BATCH] = x[BATCH] + 1; batch = batch + 1 end
  free = free - 1
  changed[name] = true
  if name ~= me then told[name] = true end
end

local waiting, unused, elsewhereRunning, elsewhereBatch, elsewhereWaiting, idleElsewhere = 0, free, 0, 0, 0, 0
for i = 1, #order do
  local x = replicas[order[i]]
  local idle = max(0, permitsOf(x) - x[RUNNING])
  waiting = waiting + x[LEFT]
  unused = unused + idle
  if x ~= r then
    elsewhereRunning = elsewhereRunning + x[RUNNING]
    elsewhereBatch = elsewhereBatch + x[BATCH]
    elsewhereWaiting = elsewhereWaiting + x[LEFT]
    idleElsewhere = idleElsewhere + idle
  end
end
local spare = 0
if waiting == 0 and free > 0 then
  spare = math.ceil(unused / #order)
  local more = math.min(free, spare - max(0, permitsOf(r) - r[RUNNING]))
  if isLearning then more = math.min(more, part - permitsOf(r)) end
  if more > 0 then r[GRANTED] = r[GRANTED] + more; free = free - more end
elseif waiting == 0 and unused > 0 then
  spare = math.ceil(unused / #order)
end
local isOver = free < 0
local isWaiting = r[LEFT] > 0
if (isWaiting and (not wasWaiting or idleElsewhere > 0)) or (ARGV[8] == '1' and isOver) then
  for i = 1, #order do
    local x = replicas[order[i]]
    if x ~= r and x[RUNNING] < permitsOf(x) then x[RUNNING] = permitsOf(x); changed[order[i]] = true end
  end
  redis.call('PUBLISH', channel .. ':wanted', pool)
end

local writes = {}
for i = 1, #order do
  local name = order[i]
  local x = replicas[name]
  if changed[name] then
    writes[#writes + 1] = name
    writes[#writes + 1] = cmsgpack.pack(x)
  end
  if told[name] then
    local list, others, said, shape = x[PROMISED], {}, {x[GRANTED], x[NUMBER]}, {'%.0f;%.0f;'}
    for k = 1, #list, 5 do
      local level = list[k] == 2 and 'classes:interactive' or 'classes:batch'
      others[list[k + 1]] = (others[list[k + 1]] or 0) + list[k + 2]
      others[level] = (others[level] or 0) + list[k + 3]
    end
    local function add(level, field)
      local o = #said
      said[o + 1], said[o + 2] = field, tagOf(level, field) - (others[field] or 0)
      shape[#shape + 1] = #shape == 1 and '%s=%.0f' or ',%s=%.0f'
    end
    add(1, 'classes:interactive')
    add(1, 'classes:batch')
    list = x[HEADS]
    for k = 1, #list, 5 do add(list[k], list[k + 1]) end
    redis.call('PUBLISH', channel .. ':granted:' .. name, format(table.concat(shape), unpack(said)) .. ';' .. pool)
  end
end
redis.call('HSET', KEYS[2], unpack(writes))
local flows, cursor = redis.call('HLEN', KEYS[3]), p[8]
if flows > 1000 then
  local swept = redis.call('HSCAN', KEYS[3], cursor, 'COUNT', 32)
  local levels = {classes = 1, interactive = 2, batch = 3}
  for i = 1, #swept[2], 2 do
    local field = swept[2][i]
    if not value[field] and tonumber(swept[2][i + 1]) <= time[levels[string.match(field, '^%a+')]] then redis.call('HDEL', KEYS[3], field) end
  end
  cursor = swept[1]
end
local isDue = not kept or at - p[7] >= 3600000 or #packed == 0 or (charges > 0 and flows <= charges)
if isDue or capacity ~= p[2] or era ~= p[1] or time[1] ~= p[4] or time[2] ~= p[5] or time[3] ~= p[6] or cursor ~= p[8] then
  redis.call('SET', KEYS[1], cmsgpack.pack({era, capacity, learning, time[1], time[2], time[3], isDue and at or p[7], cursor}), 'PX', 86400000)
end
if isDue then
  redis.call('PEXPIRE', KEYS[2], 86400000)
  redis.call('PEXPIRE', KEYS[3], 86400000)
end

local reply = {era, capacity, r[GRANTED], lost, (elsewhereWaiting > 0 or isOver) and 1 or 0, max(0, free), spare,
  isLearning and 1 or 0, #order - 1, elsewhereRunning, elsewhereBatch, elsewhereWaiting, time[1], time[2], time[3]}
local o = #reply
for i = 1, replied do reply[o + i] = replies[i] end
return reply`;
