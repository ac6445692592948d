-- Shared by all scripts. KEYS[1] is the prefix, whose hash tag keeps every key in one slot. The time is the server's,
-- because the clocks of workers may differ. The constants MESSAGE_VERSION, MAX_SHARED_CRASHES, MAX_CRASHES and
-- MAX_FAIRNESS_CREDIT are defined before this text and have the values of the Rust constants.
--
-- A task is a JSON record in the hash of its job (see FIELDS). Its state says where its id is:
--   waiting   ZSET <stage>:tenant:<tenant>, by rank and sequence number
--   alone     ZSET <stage>:alone: it crashed its worker and must run alone
--   held      ZSET <stage>:held, in front of a stage that drains
--   delayed   ZSET <stage>:delayed, by the time when it is due
--   newer     ZSET <stage>:newer, by version, for workers that know the version
--   leased    an entry of the stream <stage>, pending for its worker. The entry's id is the fencing token, and
--             ZSET <stage>:leases holds when the lease expires
-- The order of tenants is start-time fair queueing: ZSET <stage>:turns holds tenants by tag, <stage>:full those that
-- have all leases they may have. A task keeps the cost of its turn until the turn has led to something.

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

-- A Redis without free memory rejects a script if its first write may take memory. After a first write that takes none,
-- all others are allowed. Scripts that finish work begin with this, so that a full queue can be drained.
local function allow_when_oom()
  redis.call('DEL', key('none'))
end

-- Wakes the workers that wait for work of the stage.
local woken = {}
local function wake(stage)
  if not woken[stage] then
    woken[stage] = true
    redis.call('XADD', key(stage, 'wake'), 'MAXLEN', '1', '*', 'r', '1')
  end
end

local WAITING, ALONE, HELD, DELAYED, NEWER, LEASED = 'w', 'a', 'h', 'd', 'n', 'l'

-- The fields of a record, and their names in these scripts.
local FIELDS = {
  v = 'version', t = 'tenant', s = 'stage', p = 'rank', b = 'bytes', a = 'attempts', d = 'crashes', e = 'enqueued_at',
  q = 'sequence', st = 'state', k = 'token', w = 'since', c = 'cost', x = 'cancelled',
}

-- The task of a record. Fields that this version does not know are kept. Raises an error if the text is no JSON object.
local function decode(text)
  local task, unknown = {}, {}
  for field, value in pairs(cjson.decode(text)) do
    if FIELDS[field] then task[FIELDS[field]] = value else unknown[field] = value end
  end
  task.unknown = unknown
  return task
end

-- The record of a task.
local function encode(task)
  local record = {}
  for field, value in pairs(task.unknown) do record[field] = value end
  for field, name in pairs(FIELDS) do record[field] = task[name] end
  return cjson.encode(record)
end

local function number(value)
  return type(value) == 'number'
end

-- Whether the task has the fields of every version. A newer version may have other stages and priorities.
local function is_valid(task)
  return number(task.version) and type(task.tenant) == 'string' and type(task.stage) == 'string'
    and number(task.rank) and number(task.bytes) and number(task.attempts) and number(task.crashes)
    and number(task.enqueued_at) and number(task.sequence)
    and (task.version > MESSAGE_VERSION or SHARE[task.rank] and (NEXT[task.stage] or task.stage == 'storage'))
end

local function split(id)
  return string.match(id, '^([%x%-]+):(%d+)$')
end

-- The task with this id; nil if there is none; false and the text if its record is invalid.
local function load(id)
  local job, item = split(id)
  local text = job and redis.call('HGET', key('job', job), item)
  if not text then return nil end
  local ok, task = pcall(decode, text)
  if ok and is_valid(task) then return task end
  return false, text
end

local function save(id, task)
  local job, item = split(id)
  local text = encode(task)
  redis.call('HSET', key('job', job), item, text)
  return text
end

-- Adds to the waiting items and bytes of the stage.
local function count_stage(stage, items, bytes)
  local state = key(stage, 'state')
  if redis.call('HINCRBY', state, 'items', items) <= 0 then
    redis.call('HSET', state, 'items', '0', 'bytes', '0')
  elseif bytes ~= 0 then
    redis.call('HINCRBY', state, 'bytes', bytes)
  end
end

-- Adds to the items and bytes that a tenant, and all tenants, have in the queue.
local function count_tenant(tenant, items, bytes)
  bytes = 0 + bytes -- turns -0 into 0, because Redis does not accept -0 as an integer
  local load = key('load')
  redis.call('HINCRBY', load, 'items', items)
  local left = redis.call('HINCRBY', load, 'i:' .. tenant, items)
  if left > 0 then
    redis.call('HINCRBY', load, 'bytes', bytes)
    redis.call('HINCRBY', load, 'b:' .. tenant, bytes)
  else
    -- The tenant's last task: a wrong count does not stay.
    local rest = redis.call('HGET', load, 'b:' .. tenant) or '0'
    redis.call('HINCRBY', load, 'bytes', 0 - tonumber(rest))
    redis.call('HDEL', load, 'i:' .. tenant, 'b:' .. tenant)
  end
end

-- Adds a task to the waiting tasks of its tenant, or to those that must run alone; ordered by its sequence number.
local function enqueue(id, task)
  local stage, cost = task.stage, task.cost or 0
  task.token, task.since, task.cost = nil, now, nil
  count_stage(stage, 1, task.bytes)
  if task.crashes >= MAX_SHARED_CRASHES then
    task.state = ALONE
    redis.call('ZADD', key(stage, 'alone'), task.sequence, id)
  else
    task.state = WAITING
    redis.call('ZADD', key(stage, 'tenant', task.tenant), task.rank * RANK + task.sequence, id)
    local turns, full = key(stage, 'turns'), key(stage, 'full')
    local mine, capped = redis.call('ZSCORE', turns, task.tenant), redis.call('ZSCORE', full, task.tenant)
    if cost > 0 or not (mine or capped) then
      -- A tenant that returns after a pause has no credit for it. The cost of a turn that led to nothing is given back,
      -- but the credit is at most MAX_FAIRNESS_CREDIT.
      local all = tonumber(redis.call('HGET', key(stage, 'state'), 'tag') or '0')
      local tag = tonumber(mine or capped) or all
      redis.call('ZADD', capped and full or turns, math.max(tag - cost, math.min(tag, all - MAX_FAIRNESS_CREDIT)),
        task.tenant)
    end
  end
  wake(stage)
  return save(id, task)
end

-- Adds a task that enters the stage: a draining stage holds it.
local function enqueue_or_hold(id, task)
  if redis.call('EXISTS', key('stage', task.stage, 'drain')) == 0 then return enqueue(id, task) end
  task.token, task.since, task.state = nil, now, HELD
  redis.call('ZADD', key(task.stage, 'held'), task.sequence, id)
  return save(id, task)
end

local function delay(id, task, after)
  task.token, task.state = nil, DELAYED
  redis.call('ZADD', key(task.stage, 'delayed'), now + after, id)
  save(id, task)
end

-- Removes a task that is not leased from its set.
local function dequeue(id, task)
  if task.state == WAITING then
    redis.call('ZREM', key(task.stage, 'tenant', task.tenant), id)
    count_stage(task.stage, -1, -task.bytes)
  elseif task.state == ALONE then
    redis.call('ZREM', key(task.stage, 'alone'), id)
    count_stage(task.stage, -1, -task.bytes)
  elseif task.state == HELD then
    redis.call('ZREM', key(task.stage, 'held'), id)
  elseif task.state == DELAYED then
    redis.call('ZREM', key(task.stage, 'delayed'), id)
  elseif task.state == NEWER then
    redis.call('ZREM', key(task.stage, 'newer'), id)
  end
end

-- Removes a task from the queue; it is in no set any more.
local function remove(id, tenant, bytes)
  local job, item = split(id)
  redis.call('HDEL', key('job', job), item)
  if tenant then count_tenant(tenant, -1, -bytes) end
  if redis.call('EXISTS', key('job', job)) == 0 then
    redis.call('ZREM', key('jobs'), job)
    if tenant then redis.call('ZREM', key('tenant', tenant), job) end
  end
end

-- Removes the stream entry and the expiry of a lease.
local function end_lease_entry(stage, token, id)
  redis.call('XACK', key(stage), group(stage), token)
  redis.call('XDEL', key(stage), token)
  redis.call('ZREM', key(stage, 'leases'), token .. ' ' .. id)
end

-- Ends a lease: the tenant may get another one.
local function end_lease(stage, token, id, tenant)
  end_lease_entry(stage, token, id)
  local flight = key(stage, 'flight')
  if redis.call('HINCRBY', flight, tenant, -1) <= 0 then redis.call('HDEL', flight, tenant) end
  local tag = redis.call('ZSCORE', key(stage, 'full'), tenant)
  if tag then
    redis.call('ZREM', key(stage, 'full'), tenant)
    redis.call('ZADD', key(stage, 'turns'), tag, tenant)
    wake(stage)
  end
end

-- The consumer for which the entry is pending, or nil.
local function owner(stage, token)
  local pending = redis.pcall('XPENDING', key(stage), group(stage), token, token, '1')
  return not pending.err and pending[1] and pending[1][2] or nil
end

-- Removes a dead letter.
local function remove_dead_letter(stage, entry, id)
  redis.call('XDEL', key(stage, 'dlq'), entry)
  if id and redis.call('HGET', key('dead'), id) == stage .. ' ' .. entry then redis.call('HDEL', key('dead'), id) end
end

local function field(fields, name)
  for i = 1, #fields, 2 do
    if fields[i] == name then return fields[i + 1] end
  end
end

-- Removes the oldest dead letters above a count or an age, at most 50 at a time.
local function trim_dead_letters(stage, max_count, max_age)
  local dlq = key(stage, 'dlq')
  for _ = 1, 50 do
    local first = redis.call('XRANGE', dlq, '-', '+', 'COUNT', '1')[1]
    if not first then return end
    local at = tonumber(string.match(first[1], '^%d+'))
    if redis.call('XLEN', dlq) <= max_count and at >= now - max_age then return end
    remove_dead_letter(stage, first[1], field(first[2], 'id'))
  end
end

-- Moves a task to the dead letters; it is in no set any more.
local function move_to_dead_letters(id, task, code, message)
  task.token, task.state, task.since, task.cost = nil, nil, nil, nil
  local entry = redis.call('XADD', key(task.stage, 'dlq'), '*', 'id', id, 'task', encode(task),
    'code', code, 'message', message)
  redis.call('HSET', key('dead'), id, task.stage .. ' ' .. entry)
  remove(id, task.tenant, task.bytes)
end

-- Counts a crash of a worker with this task. After MAX_CRASHES the task is a dead letter with this message; otherwise
-- it waits for `after` ms, or not at all if that is nil.
local function record_crash(id, task, message, after)
  task.crashes, task.cost = task.crashes + 1, nil
  if task.crashes >= MAX_CRASHES then
    move_to_dead_letters(id, task, 'worker_died', message)
  elseif after then
    delay(id, task, after)
  else
    enqueue(id, task)
  end
end

-- Whether the consumer sent a heartbeat within the time of a lease.
local function is_alive(consumer)
  return tonumber(redis.call('ZSCORE', key('workers'), consumer) or '0') > now
end

-- Records that a worker is there. If none was there for longer than `silence` ms, the queue or all workers were
-- unavailable and no lease could be renewed, so all leases are extended by that time.
local function record_heartbeat(silence)
  local last = tonumber(redis.call('GET', key('heard')) or now)
  allow_when_oom()
  redis.call('SET', key('heard'), now)
  local gap = now - last
  if gap <= silence then return end
  for _, stage in ipairs(STAGES) do
    local leases = key(stage, 'leases')
    for _, lease in ipairs(redis.call('ZRANGE', leases, '0', '-1')) do redis.call('ZINCRBY', leases, gap, lease) end
  end
end
