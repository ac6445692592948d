-- ARGV: stage, consumer, maximum tasks, length of a lease (ms), idle (1 or 0), maximum leases of a tenant (0: no
-- limit), the message of a task that crashed too many workers, and how long (ms) all workers may be silent before the
-- time is not counted. Returns when to request again (ms, -1: unknown), 1 if this worker is to become idle, then token,
-- id, record and kind of each lease. Kinds: 0 leased, 1 leased alone, 2 cannot be read (the record is what was found).
local stage, consumer = ARGV[1], ARGV[2]
local max_tasks, length, idle, cap = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5] == '1', tonumber(ARGV[6])
local stream, leases, turns, full = key(stage), key(stage, 'leases'), key(stage, 'turns'), key(stage, 'full')
local flight, state = key(stage, 'flight'), key(stage, 'state')
local result, granted = { -1, 0 }, 0
local PAGE_SIZE = 100
local MIN_CLEARING_MS = 60000
local KIND_LEASED, KIND_ALONE, KIND_UNREADABLE = 0, 1, 2

record_heartbeat(tonumber(ARGV[8]))

local function grant(token, id, text, kind)
  redis.call('ZADD', leases, now + length, token .. ' ' .. id)
  for _, value in ipairs({ token, id, text, kind }) do result[#result + 1] = value end
  granted = granted + 1
end

local function read(max_entries)
  local command = { 'XREADGROUP', 'GROUP', group(stage), consumer, 'COUNT', max_entries, 'STREAMS', stream, '>' }
  local found = redis.pcall(unpack(command))
  if found and found.err then
    if not string.find(found.err, 'NOGROUP', 1, true) then error(found.err) end
    -- From the first entry on: entries that are there were leased in a group that is gone.
    redis.call('XGROUP', 'CREATE', stream, group(stage), '0', 'MKSTREAM')
    found = redis.call(unpack(command))
  end
  return found and found[1] and found[1][2] or {}
end

-- Entries that this call added, by token; how many leases they will become, in total and per tenant.
local added, taken, taken_of = {}, 0, {}
local function add_entry(id, task, text, kind)
  local token = redis.call('XADD', stream, '*', 't', id)
  added[token] = { id, task, text, kind }
end

-- Leases the added entries, and entries whose group was lost, to this consumer.
local function claim(max_entries)
  for _, entry in ipairs(read(max_entries)) do
    local token, mine = entry[1], added[entry[1]]
    if mine then
      local id, task, text, kind = unpack(mine, 1, 4)
      if task then
        task.state, task.token = LEASED, token
        text = save(id, task)
        redis.call('HINCRBY', flight, task.tenant, 1)
      end
      grant(token, id, text, kind)
    else
      local id = type(entry[2]) == 'table' and field(entry[2], 't')
      if not id or not split(id) then
        grant(token, '', table.concat(entry[2] or {}, '\n'), KIND_UNREADABLE)
      else
        local task = load(id)
        if task and task.state == LEASED and task.token == token then
          grant(token, id, save(id, task), KIND_LEASED)
        else
          -- The task is in another state or gone: the entry has no meaning.
          end_lease_entry(stage, token, id)
        end
      end
    end
  end
end

-- Expired leases. If the worker is silent, it counts as a crash. A worker that sends heartbeats did not renew because
-- it does not know of the lease.
for _, member in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', '0', PAGE_SIZE)) do
  local token, id = string.match(member, '^(%S+) (.*)$')
  local dead = owner(stage, token)
  local task, text
  if id ~= '' then task, text = load(id) end
  if task == false or (id == '' and dead) then
    -- It is not among the dead letters yet: this worker moves it there.
    if dead and granted < max_tasks then
      redis.call('XCLAIM', stream, group(stage), consumer, '0', token, 'JUSTID')
      if not text then
        local entry = redis.call('XRANGE', stream, token, token)[1]
        text = entry and table.concat(entry[2], '\n') or ''
      end
      grant(token, id, text, KIND_UNREADABLE)
    elseif not dead then
      end_lease_entry(stage, token, id)
    end
  elseif task and task.state == LEASED and task.token == token then
    end_lease(stage, token, id, task.tenant)
    if task.cancelled then
      remove(id, task.tenant, task.bytes)
    elseif dead and not is_alive(dead) then
      record_crash(id, task, ARGV[7])
    else
      enqueue(id, task)
    end
  else
    end_lease_entry(stage, token, id)
  end
  if dead and dead ~= consumer and #redis.call('XPENDING', stream, group(stage), '-', '+', '1', dead) == 0 then
    redis.call('XGROUP', 'DELCONSUMER', stream, group(stage), dead)
  end
end

-- Delayed tasks that are due, and tasks of a version that this worker knows.
local delayed, newer = key(stage, 'delayed'), key(stage, 'newer')
for zset, till in pairs({ [delayed] = now, [newer] = MESSAGE_VERSION }) do
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', zset, '-inf', till, 'LIMIT', '0', PAGE_SIZE)) do
    redis.call('ZREM', zset, id)
    local task, text = load(id)
    if task and (task.state == DELAYED or task.state == NEWER) and task.stage == stage then
      enqueue(id, task)
    elseif task == false then
      add_entry(id, nil, text, KIND_UNREADABLE)
    end
  end
end

-- Sets a task of a newer version aside for workers that know it; it is in no set any more.
local function set_aside(id, task)
  task.token, task.state = nil, NEWER
  redis.call('ZADD', newer, task.version, id)
  save(id, task)
end

-- Leases the first task that must run alone, before all others, to a worker that is idle. If this worker is not idle,
-- it is asked to become so and gets no lease. One worker at a time is asked, for as long as it is alive, because its
-- current work may take long; at least for MIN_CLEARING_MS, because it may not have sent a heartbeat yet. A worker that
-- requests leases again has not received the reply, or is another loop of the same process. Returns whether there is
-- such a task.
local function lease_alone()
  local clearing = key(stage, 'clearing')
  if idle then redis.call('DEL', clearing) end
  local first = redis.call('ZRANGE', key(stage, 'alone'), '0', '0')[1]
  if not first then return false end
  if not idle then
    local till, holder = string.match(redis.call('GET', clearing) or '', '^(%d+) (.*)$')
    if holder and holder ~= consumer and (tonumber(till) > now or is_alive(holder)) then return false end
    redis.call('SET', clearing, string.format('%d %s', now + MIN_CLEARING_MS, consumer))
    result[2] = 1
    return true
  end
  redis.call('ZREM', key(stage, 'alone'), first)
  local task, text = load(first)
  count_stage(stage, -1, task and -task.bytes or 0)
  if task and task.version > MESSAGE_VERSION then
    set_aside(first, task)
  elseif task then
    add_entry(first, task, nil, KIND_ALONE)
  elseif text then
    add_entry(first, nil, text, KIND_UNREADABLE)
  end
  return true
end

-- Takes the first task of the tenant with the lowest tag. Returns false if no tenant has one.
local function take_next()
  local first = redis.call('ZRANGE', turns, '0', '0', 'WITHSCORES')
  if not first[1] then return false end
  local tenant, tag = first[1], tonumber(first[2])
  if cap > 0 and tonumber(redis.call('HGET', flight, tenant) or '0') + (taken_of[tenant] or 0) >= cap then
    redis.call('ZREM', turns, tenant)
    redis.call('ZADD', full, tag, tenant)
    return true
  end
  if tag > tonumber(redis.call('HGET', state, 'tag') or '0') then redis.call('HSET', state, 'tag', tag) end
  local id = redis.call('ZPOPMIN', key(stage, 'tenant', tenant))[1]
  if not id then
    redis.call('ZREM', turns, tenant)
    return true
  end
  local task, text = load(id)
  count_stage(stage, -1, task and -task.bytes or 0)
  if task and task.version > MESSAGE_VERSION then
    set_aside(id, task)
  elseif task then
    -- The cost of a turn: the bytes plus a constant, less for a higher priority.
    task.cost = (math.min(task.bytes, 2 ^ 40) + 4096) * SHARE[task.rank]
    redis.call('ZINCRBY', turns, task.cost, tenant)
    add_entry(id, task, nil, KIND_LEASED)
    taken, taken_of[tenant] = taken + 1, (taken_of[tenant] or 0) + 1
  elseif text then
    add_entry(id, nil, text, KIND_UNREADABLE)
    count_tenant(tenant, -1, 0)
  end
  return true
end

local paused = redis.call('EXISTS', key('stage', stage, 'paused')) == 1
if not paused then
  if lease_alone() then
    claim(max_tasks)
  else
    claim(math.max(max_tasks - granted, 1))
    -- Tasks that are set aside need time, too, so the turns are limited.
    local turns_taken = 0
    local max_turns = max_tasks + PAGE_SIZE
    while granted + taken < max_tasks and turns_taken < max_turns and take_next() do turns_taken = turns_taken + 1 end
    if turns_taken == max_turns then result[1] = 1 end
    claim(max_tasks + PAGE_SIZE)
  end
elseif next(added) then
  claim(PAGE_SIZE)
end

for _, zset in ipairs({ delayed, leases }) do
  local first = redis.call('ZRANGE', zset, '0', '0', 'WITHSCORES')[2]
  if first then
    local wait = math.max(tonumber(first) - now, 1)
    if result[1] < 0 or wait < result[1] then result[1] = wait end
  end
end
return result
