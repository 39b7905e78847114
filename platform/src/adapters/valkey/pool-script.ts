/**
 * What happens to a pool's permits and virtual times inside Valkey: one script, one atomic step over three keys of the pool (one hash tag, one slot of a cluster). Time is the
 * server's own. Numbers are written by `%.0f`: Lua's own conversion (%.14g) would lose units of virtual time.
 *
 * KEYS: pool, a hash (`era`, `capacity`, `learning` until when, the times of the three levels); replicas, a hash (a record each); times, a hash (flow -> virtual time). A flow
 * that is not there is at its level's time.
 * ARGV: replica, now or '', four times in ms (lease, waiting, placeholder, learning), capacity, whether it is new, permits for batch work, part, held, running, running batch
 * work, granted, number, name of the channels, pool, how many charges and heads; each charge (level, key, whether it has begun, charged before its start or '', units, credit); each
 * head (class, tenant, units of the next request for the tenant and for the class, queued).
 * Replies era, capacity, granted, lost, whether permits are wanted, free, spare, whether it is learning; replicas, running, batch work and waiting elsewhere; the times of the
 * levels, of the classes, of the charges, of the heads.
 *
 * Who is granted a permit: of the classes with waiting requests the one with less virtual time, of its tenants the one with the least, wherever it waits; at a tie the replica
 * with fewer permits. What is granted is promised: it counts as charged until the replica confirms it, and with that says what was charged.
 *
 * Published: the pool to `<channels>:wanted` when somebody waits, and to `<channels>:granted:<replica>` its grants, the number of its charges that count, the times of the
 * classes and of its heads without what it was promised itself, the pool.
 *
 * A record: nine numbers; heads (class, flow, two units, left); promises (class, flow, two units, grant).
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
local function whole(x) return string.format('%.0f', x) end
local levels = {'classes', 'interactive', 'batch'}

local p = redis.call('HMGET', KEYS[1], 'era', 'capacity', 'learning', 'classes', 'interactive', 'batch')
local era, learning, time = p[1], tonumber(p[3] or 0), {}
if not era then era, learning = whole(at), at + learnFor end
local capacity = tonumber(p[2] or n[7])
if ARGV[8] == '1' then capacity = n[7] end
for i, level in ipairs(levels) do time[level] = tonumber(p[3 + i] or 0) end

local names = {'lease', 'waiting', 'place', 'held', 'running', 'batch', 'granted', 'seen', 'number'}
local replicas, order, changed = {}, {}, {}
local function split(text, mark)
  local parts = {}
  for part in string.gmatch(text, '[^' .. mark .. ']+') do parts[#parts + 1] = part end
  return parts
end
local function read(text)
  local r, lists = {heads = {}, promised = {}}, {}
  for list in string.gmatch(text .. ';', '([^;]*);') do lists[#lists + 1] = list end
  for i, x in ipairs(split(lists[1], ' ')) do r[names[i]] = tonumber(x) end
  for i, x in ipairs(split(lists[2], ',')) do
    local h = split(x, ' ')
    r.heads[i] = {class = h[1], field = h[2], units = tonumber(h[3]), work = tonumber(h[4]), left = tonumber(h[5])}
  end
  for i, x in ipairs(split(lists[3], ',')) do
    local h = split(x, ' ')
    r.promised[i] = {class = h[1], field = h[2], units = tonumber(h[3]), work = tonumber(h[4]), grant = tonumber(h[5])}
  end
  return r
end
local function write(r)
  local numbers, heads, promised = {}, {}, {}
  for i, name in ipairs(names) do numbers[i] = whole(r[name]) end
  for i, h in ipairs(r.heads) do heads[i] = table.concat({h.class, h.field, whole(h.units), whole(h.work), whole(h.left)}, ' ') end
  for i, h in ipairs(r.promised) do promised[i] = table.concat({h.class, h.field, whole(h.units), whole(h.work), whole(h.grant)}, ' ') end
  return table.concat(numbers, ' ') .. ';' .. table.concat(heads, ',') .. ';' .. table.concat(promised, ',')
end
local function confirm(r)
  local open = {}
  for i, h in ipairs(r.promised) do
    if h.grant > r.seen then open[#open + 1] = h end
  end
  r.promised = open
end
local flat = redis.call('HGETALL', KEYS[2])
for i = 1, #flat, 2 do
  local name, r = flat[i], read(flat[i + 1])
  if r.lease <= at then
    redis.call('HDEL', KEYS[2], name)
  else
    if r.waiting <= at then r.heads = {} end
    if r.granted > r.seen and r.place <= at then r.seen = r.granted; confirm(r); changed[name] = true end
    replicas[name] = r
    order[#order + 1] = name
  end
end

local r, lost = replicas[me], 0
local function waitingOf(x)
  local waiting = 0
  for i, h in ipairs(x.heads) do waiting = waiting + h.left end
  return waiting
end
local wasWaiting = r and waitingOf(r) > 0
if not r then
  r = {granted = n[14], seen = n[14], number = 0, heads = {}, promised = {}}
  replicas[me] = r
  order[#order + 1] = me
end
table.sort(order)
changed[me] = true
if n[14] < r.seen then lost = r.seen - n[14] else r.seen = n[14] end
r.granted = math.max(r.granted, r.seen)
r.lease, r.waiting, r.place = at + leaseFor, at + waitingFor, at + placeFor
r.held, r.running, r.batch = n[11], n[12], n[13]
confirm(r)
r.heads = {}
local fields, first = {'classes:interactive', 'classes:batch'}, 20
for i = 0, charges - 1 do fields[#fields + 1] = ARGV[first + 6 * i] .. ':' .. ARGV[first + 6 * i + 1] end
local firstHead = first + 6 * charges
for i = 0, heads - 1 do
  local o = firstHead + 5 * i
  local field = ARGV[o] .. ':' .. ARGV[o + 1]
  fields[#fields + 1] = field
  r.heads[i + 1] = {class = ARGV[o], field = field, units = tonumber(ARGV[o + 2]), work = tonumber(ARGV[o + 3]), left = tonumber(ARGV[o + 4])}
end
local replied, waits = #fields, {}
for i, name in ipairs(order) do
  for k, h in ipairs(name ~= me and replicas[name].heads or {}) do
    fields[#fields + 1] = h.field
    if h.left > 0 then waits[h.field] = true; waits['classes:' .. h.class] = true end
  end
end
local found, value = redis.call('HMGET', KEYS[3], unpack(fields)), {}
for i, field in ipairs(fields) do
  if found[i] then value[field] = tonumber(found[i]) end
end
local function valueOf(level, field) return value[field] or time[level] end
if number > r.number and charges > 0 then
  local writes = {}
  for i = 0, charges - 1 do
    local o = first + 6 * i
    local level, field = ARGV[o], fields[3 + i]
    local v, units = valueOf(level, field), tonumber(ARGV[o + 4])
    if ARGV[o + 2] == '1' and v < time[level] and not waits[field] then v = time[level] end
    if ARGV[o + 3] ~= '' then time[level] = math.max(time[level], v + tonumber(ARGV[o + 3])) end
    if units < 0 then value[field] = math.max(v + units, math.min(v, time[level] - tonumber(ARGV[o + 5])))
    else value[field] = v + units end
    writes[#writes + 1] = field
    writes[#writes + 1] = whole(value[field])
  end
  redis.call('HSET', KEYS[3], unpack(writes))
end
r.number = math.max(number, r.number)

if math.max(time.classes, time.interactive, time.batch) > 2 ^ 50 then
  redis.call('DEL', KEYS[3])
  era, value = whole(at), {}
  for i, level in ipairs(levels) do time[level] = 0 end
  for i, name in ipairs(order) do replicas[name].heads, replicas[name].promised = {}, {}; changed[name] = true end
end

local promised = {}
local function promise(h)
  promised[h.field] = (promised[h.field] or 0) + h.units
  local class = 'classes:' .. h.class
  promised[class] = (promised[class] or 0) + h.work
end
for i, name in ipairs(order) do
  for k, h in ipairs(replicas[name].promised) do
    if name ~= me then promise(h) end
  end
end
local replies = {}
for i = 1, replied do
  local field = fields[i]
  replies[i] = whole(valueOf(string.match(field, '^%a+'), field) + (promised[field] or 0))
end
for k, h in ipairs(r.promised) do promise(h) end
local isLearning, used, batch = at < learning, 0, 0
for i, name in ipairs(order) do
  used = used + replicas[name].held + replicas[name].granted - replicas[name].seen
  batch = batch + replicas[name].batch
end
local free = capacity - used
local function permitsOf(x) return x.held + x.granted - x.seen end
local function mayHave(name) return not isLearning or (name == me and permitsOf(r) < part) end
local function tagOf(level, field) return valueOf(level, field) + (promised[field] or 0) end
local function nextOf(class)
  local best, bestTag, bestName
  for i, name in ipairs(order) do
    for k, h in ipairs(mayHave(name) and replicas[name].heads or {}) do
      if h.class == class and h.left > 0 then
        local tag = tagOf(class, h.field)
        local isFirst = not best or tag < bestTag
        if isFirst or (tag == bestTag and permitsOf(replicas[name]) < permitsOf(replicas[bestName])) then best, bestTag, bestName = h, tag, name end
      end
    end
  end
  return best, bestName
end
local told = {}
while free > 0 do
  local h, name = nextOf('interactive')
  if batch < batchMax then
    local other, otherName = nextOf('batch')
    if other and (not h or tagOf('classes', fields[2]) < tagOf('classes', fields[1])) then h, name = other, otherName end
  end
  if not h then break end
  local x = replicas[name]
  h.left = h.left - 1
  x.granted = x.granted + 1
  x.place = at + placeFor
  x.promised[#x.promised + 1] = {class = h.class, field = h.field, units = h.units, work = h.work, grant = x.granted}
  promise(h)
  if h.class == 'batch' then x.batch = x.batch + 1; batch = batch + 1 end
  free = free - 1
  changed[name] = true
  if name ~= me then told[name] = true end
end

local waiting, unused, elsewhere = 0, free, {running = 0, batch = 0, waiting = 0}
local idleElsewhere = 0
for i, name in ipairs(order) do
  local x = replicas[name]
  local left, idle = waitingOf(x), math.max(0, permitsOf(x) - x.running)
  waiting = waiting + left
  unused = unused + idle
  if name ~= me then
    elsewhere.running = elsewhere.running + x.running
    elsewhere.batch = elsewhere.batch + x.batch
    elsewhere.waiting = elsewhere.waiting + left
    idleElsewhere = idleElsewhere + idle
  end
end
local spare = 0
if waiting == 0 and free > 0 then
  spare = math.ceil(unused / #order)
  local more = math.min(free, spare - math.max(0, permitsOf(r) - r.running))
  if isLearning then more = math.min(more, part - permitsOf(r)) end
  if more > 0 then r.granted = r.granted + more; free = free - more end
elseif waiting == 0 and unused > 0 then
  spare = math.ceil(unused / #order)
end
local isOver = free < 0
local isWaiting = waitingOf(r) > 0
if (isWaiting and (not wasWaiting or idleElsewhere > 0)) or (ARGV[8] == '1' and isOver) then
  for i, name in ipairs(order) do
    local x = replicas[name]
    if name ~= me and x.running < permitsOf(x) then x.running = permitsOf(x); changed[name] = true end
  end
  redis.call('PUBLISH', channel .. ':wanted', pool)
end

redis.call('HSET', KEYS[1], 'era', era, 'capacity', whole(capacity), 'learning', whole(learning),
  'classes', whole(time.classes), 'interactive', whole(time.interactive), 'batch', whole(time.batch))
for i, name in ipairs(order) do
  if changed[name] then redis.call('HSET', KEYS[2], name, write(replicas[name])) end
  if told[name] then
    local x = replicas[name]
    local own, times = {}, {}
    for k, h in ipairs(x.promised) do
      own[h.field] = (own[h.field] or 0) + h.units
      own['classes:' .. h.class] = (own['classes:' .. h.class] or 0) + h.work
    end
    local function add(level, field) times[#times + 1] = field .. '=' .. whole(tagOf(level, field) - (own[field] or 0)) end
    add('classes', fields[1])
    add('classes', fields[2])
    for k, h in ipairs(x.heads) do add(h.class, h.field) end
    redis.call('PUBLISH', channel .. ':granted:' .. name, table.concat({whole(x.granted), whole(x.number), table.concat(times, ','), pool}, ';'))
  end
end
if redis.call('HLEN', KEYS[3]) > 1000 then
  local cursor = redis.call('HGET', KEYS[1], 'cursor') or '0'
  local swept = redis.call('HSCAN', KEYS[3], cursor, 'COUNT', 32)
  for i = 1, #swept[2], 2 do
    local field = swept[2][i]
    local level = string.match(field, '^%a+')
    if not value[field] and tonumber(swept[2][i + 1]) <= time[level] then redis.call('HDEL', KEYS[3], field) end
  end
  redis.call('HSET', KEYS[1], 'cursor', swept[1])
end
for i = 1, 3 do redis.call('PEXPIRE', KEYS[i], 86400000) end

local reply = {era, whole(capacity), whole(r.granted), whole(lost), (elsewhere.waiting > 0 or isOver) and '1' or '0', whole(math.max(0, free)), whole(spare),
  isLearning and '1' or '0', whole(#order - 1), whole(elsewhere.running), whole(elsewhere.batch), whole(elsewhere.waiting)}
for i, level in ipairs(levels) do reply[#reply + 1] = whole(time[level]) end
for i = 1, replied do reply[#reply + 1] = replies[i] end
return reply`;
