-- What all scripts share. KEYS[1] is the prefix, whose hash tag keeps every key on one slot. The time is the server's:
-- clocks of workers may differ. Before this text stand the constants VERSION, COMPANY, LETHAL and SAVED.
--
-- A task is a JSON record in the hash of its job; fields a script does not know stay. Its place (st) is one of:
--   w waiting   ZSET <stage>:tenant:<tenant>, by rank and arrival      a alone   ZSET <stage>:alone
--   h held      ZSET <stage>:held, before a stage that drains          d delayed ZSET <stage>:delayed, by due time
--   n newer     ZSET <stage>:newer, by version, for workers who know it
--   l leased    an entry of the stream <stage>, pending for its worker; the entry's id is the fence (k), and
--               ZSET <stage>:leases says when it runs out
-- Turns (start-time fair queueing): ZSET <stage>:turns holds tenants by tag, <stage>:full those with all they may have.
-- What a task's turn has cost (c) stands in it until something has come of the turn.

local prefix = KEYS[1]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local STAGES = { 'chunking', 'embedding', 'storage' }
local NEXT = { chunking = 'embedding', embedding = 'storage' }
local SHARE = { [0] = 1, [1] = 2, [2] = 4 }
local RANK = 2 ^ 50

local function key(...)
  return prefix .. ':' .. table.concat({ ... }, ':')
end

local function group(stage)
  return stage .. '-workers'
end

-- A full Redis refuses a script whose first write may take memory, and asks no more after one that takes none. So
-- what brings work to an end, and must go on there, begins with this.
local function also_when_full()
  redis.call('DEL', key('none'))
end

-- There may be work at the stage: whoever waits looks.
local rung = {}
local function ring(stage)
  if not rung[stage] then
    rung[stage] = true
    redis.call('XADD', key(stage, 'wake'), 'MAXLEN', '1', '*', 'r', '1')
  end
end

local function number(value)
  return type(value) == 'number'
end

-- Fields that every version of the message has; of a newer one there may be other stages and priorities.
local function sound(task)
  return type(task) == 'table' and number(task.v) and type(task.t) == 'string' and type(task.s) == 'string'
    and number(task.p) and number(task.b) and number(task.a) and number(task.d) and number(task.e) and number(task.q)
    and (task.v > VERSION or SHARE[task.p] and (NEXT[task.s] or task.s == 'storage'))
end

local function split(id)
  return string.match(id, '^([%x%-]+):(%d+)$')
end

-- The record; nil when there is none; false and the text when it cannot be read.
local function load(id)
  local job, item = split(id)
  local text = job and redis.call('HGET', key('job', job), item)
  if not text then return nil end
  local ok, task = pcall(cjson.decode, text)
  if ok and sound(task) then return task end
  return false, text
end

local function save(id, task)
  local job, item = split(id)
  local text = cjson.encode(task)
  redis.call('HSET', key('job', job), item, text)
  return text
end

-- How much of the stage waits.
local function count(stage, items, bytes)
  local state = key(stage, 'state')
  if redis.call('HINCRBY', state, 'items', items) <= 0 then
    redis.call('HSET', state, 'items', '0', 'bytes', '0')
  elseif bytes ~= 0 then
    redis.call('HINCRBY', state, 'bytes', bytes)
  end
end

-- How much a tenant, and everybody, has in the queue.
local function press(tenant, items, bytes)
  bytes = 0 + bytes -- there is a -0, and Redis does not take it for an integer
  local load = key('load')
  redis.call('HINCRBY', load, 'items', items)
  local left = redis.call('HINCRBY', load, 'i:' .. tenant, items)
  if left > 0 then
    redis.call('HINCRBY', load, 'bytes', bytes)
    redis.call('HINCRBY', load, 'b:' .. tenant, bytes)
  else
    -- Whatever was miscounted ends with the tenant's last task.
    local rest = redis.call('HGET', load, 'b:' .. tenant) or '0'
    redis.call('HINCRBY', load, 'bytes', 0 - tonumber(rest))
    redis.call('HDEL', load, 'i:' .. tenant, 'b:' .. tenant)
  end
end

-- Into its lane, or to those that must run alone; at its old place among them.
local function enter(id, task)
  local stage, cost = task.s, task.c or 0
  task.k, task.w, task.c = nil, now, nil
  count(stage, 1, task.b)
  if task.d >= COMPANY then
    task.st = 'a'
    redis.call('ZADD', key(stage, 'alone'), task.q, id)
  else
    task.st = 'w'
    redis.call('ZADD', key(stage, 'tenant', task.t), task.p * RANK + task.q, id)
    local turns, full = key(stage, 'turns'), key(stage, 'full')
    local mine, capped = redis.call('ZSCORE', turns, task.t), redis.call('ZSCORE', full, task.t)
    if cost > 0 or not (mine or capped) then
      -- Who comes back after a pause must not have saved up turns meanwhile. A turn of which nothing came is given
      -- back, but nobody is ahead of the others by more than a batch.
      local all = tonumber(redis.call('HGET', key(stage, 'state'), 'tag') or '0')
      local tag = tonumber(mine or capped) or all
      redis.call('ZADD', capped and full or turns, math.max(tag - cost, math.min(tag, all - SAVED)), task.t)
    end
  end
  ring(stage)
  return save(id, task)
end

-- Into a stage from outside.
local function admit(id, task)
  if redis.call('EXISTS', key('stage', task.s, 'drain')) == 0 then return enter(id, task) end
  task.k, task.w, task.st = nil, now, 'h'
  redis.call('ZADD', key(task.s, 'held'), task.q, id)
  return save(id, task)
end

local function delay(id, task, after)
  task.k, task.st = nil, 'd'
  redis.call('ZADD', key(task.s, 'delayed'), now + after, id)
  save(id, task)
end

-- Out of the place where it is not leased.
local function withdraw(id, task)
  if task.st == 'w' then
    redis.call('ZREM', key(task.s, 'tenant', task.t), id)
    count(task.s, -1, -task.b)
  elseif task.st == 'a' then
    redis.call('ZREM', key(task.s, 'alone'), id)
    count(task.s, -1, -task.b)
  elseif task.st == 'h' then
    redis.call('ZREM', key(task.s, 'held'), id)
  elseif task.st == 'd' then
    redis.call('ZREM', key(task.s, 'delayed'), id)
  elseif task.st == 'n' then
    redis.call('ZREM', key(task.s, 'newer'), id)
  end
end

-- Out of the queue; from its place it is gone already.
local function forget(id, tenant, bytes)
  local job, item = split(id)
  redis.call('HDEL', key('job', job), item)
  if tenant then press(tenant, -1, -bytes) end
  if redis.call('EXISTS', key('job', job)) == 0 then
    redis.call('ZREM', key('jobs'), job)
    if tenant then redis.call('ZREM', key('tenant', tenant), job) end
  end
end

-- Ends a lease's entry.
local function drop(stage, token, id)
  redis.call('XACK', key(stage), group(stage), token)
  redis.call('XDEL', key(stage), token)
  redis.call('ZREM', key(stage, 'leases'), token .. ' ' .. id)
end

-- Ends a lease; the tenant may have another one.
local function release(stage, token, id, tenant)
  drop(stage, token, id)
  local flight = key(stage, 'flight')
  if redis.call('HINCRBY', flight, tenant, -1) <= 0 then redis.call('HDEL', flight, tenant) end
  local tag = redis.call('ZSCORE', key(stage, 'full'), tenant)
  if tag then
    redis.call('ZREM', key(stage, 'full'), tenant)
    redis.call('ZADD', key(stage, 'turns'), tag, tenant)
    ring(stage)
  end
end

-- The consumer that has the entry, or nil.
local function owner(stage, token)
  local pending = redis.pcall('XPENDING', key(stage), group(stage), token, token, '1')
  return not pending.err and pending[1] and pending[1][2] or nil
end

-- Takes a dead letter out.
local function exhume(stage, entry, id)
  redis.call('XDEL', key(stage, 'dlq'), entry)
  if id and redis.call('HGET', key('dead'), id) == stage .. ' ' .. entry then redis.call('HDEL', key('dead'), id) end
end

local function field(fields, name)
  for i = 1, #fields, 2 do
    if fields[i] == name then return fields[i + 1] end
  end
end

-- Drops dead letters that are too many or too old, some at a time.
local function trim(stage, most, age)
  local dlq = key(stage, 'dlq')
  for _ = 1, 50 do
    local first = redis.call('XRANGE', dlq, '-', '+', 'COUNT', '1')[1]
    if not first then return end
    local at = tonumber(string.match(first[1], '^%d+'))
    if redis.call('XLEN', dlq) <= most and at >= now - age then return end
    exhume(stage, first[1], field(first[2], 'id'))
  end
end

-- To the dead letters; from its place it is gone already.
local function bury(id, task, code, message)
  task.k, task.st, task.w, task.c = nil, nil, nil, nil
  local entry = redis.call('XADD', key(task.s, 'dlq'), '*', 'id', id, 'task', cjson.encode(task),
    'code', code, 'message', message)
  redis.call('HSET', key('dead'), id, task.s .. ' ' .. entry)
  forget(id, task.t, task.b)
end

-- A worker ended over it, or its work broke off: then it waits this long (ms). `said`: of one that did so too often.
local function died(id, task, said, after)
  task.d, task.c = task.d + 1, nil
  if task.d >= LETHAL then
    bury(id, task, 'worker_died', said)
  elseif after then
    delay(id, task, after)
  else
    enter(id, task)
  end
end

-- Whether it was heard of within a lease.
local function alive(consumer)
  return tonumber(redis.call('ZSCORE', key('workers'), consumer) or '0') > now
end

-- Somebody works here now. When nobody was heard for so long (ms), the queue was away, or all were: nobody could renew
-- a lease, so that time is not counted.
local function hear(silence)
  local last = tonumber(redis.call('GET', key('heard')) or now)
  also_when_full()
  redis.call('SET', key('heard'), now)
  local away = now - last
  if away <= silence then return end
  for _, stage in ipairs(STAGES) do
    local leases = key(stage, 'leases')
    for _, lease in ipairs(redis.call('ZRANGE', leases, '0', '-1')) do redis.call('ZINCRBY', leases, away, lease) end
  end
end
