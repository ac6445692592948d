-- ARGV: stage, consumer, most, length, idle (1 or 0), how many a tenant may have (0: any number), what to say of a
-- task that killed too many workers, how long (ms) a silence of all is none. Answers when to look again (ms, -1:
-- nothing is known), 1 when this worker is to become idle, then for each lease token, id, record, kind: 0 leased, 1
-- leased alone, 2 cannot be read (the record is what was found).
local stage, consumer = ARGV[1], ARGV[2]
local most, length, idle, cap = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5] == '1', tonumber(ARGV[6])
local stream, leases, turns, full = key(stage), key(stage, 'leases'), key(stage, 'turns'), key(stage, 'full')
local flight, state = key(stage, 'flight'), key(stage, 'state')
local answer, got = { -1, 0 }, 0
local PAGE = '100'
local CLEARING = 60000

hear(tonumber(ARGV[8]))

local function hand(token, id, text, kind)
  redis.call('ZADD', leases, now + length, token .. ' ' .. id)
  for _, value in ipairs({ token, id, text, kind }) do answer[#answer + 1] = value end
  got = got + 1
end

local function read(most)
  local command = { 'XREADGROUP', 'GROUP', group(stage), consumer, 'COUNT', most, 'STREAMS', stream, '>' }
  local found = redis.pcall(unpack(command))
  if found and found.err then
    if not string.find(found.err, 'NOGROUP', 1, true) then error(found.err) end
    -- From the first entry on, never from the end: what is there was lost by a group that is gone.
    redis.call('XGROUP', 'CREATE', stream, group(stage), '0', 'MKSTREAM')
    found = redis.call(unpack(command))
  end
  return found and found[1] and found[1][2] or {}
end

-- Entries made by this call, by token; how many leases will come of them, and for whom.
local made, taken, takes = {}, 0, {}
local function make(id, task, text, kind)
  local token = redis.call('XADD', stream, '*', 't', id)
  made[token] = { id, task, text, kind }
end

-- Makes this consumer the owner of what was made, and of entries whose group was lost.
local function collect(most)
  for _, entry in ipairs(read(most)) do
    local token, mine = entry[1], made[entry[1]]
    if mine then
      local id, task, text, kind = unpack(mine, 1, 4)
      if task then
        task.st, task.k = 'l', token
        text = save(id, task)
        redis.call('HINCRBY', flight, task.t, 1)
      end
      hand(token, id, text, kind)
    else
      local id = type(entry[2]) == 'table' and field(entry[2], 't')
      if not id or not split(id) then
        hand(token, '', table.concat(entry[2] or {}, '\n'), 2)
      else
        local task = load(id)
        if task and task.st == 'l' and task.k == token then
          hand(token, id, save(id, task), 0)
        else
          -- The task is elsewhere or gone: this entry says nothing.
          drop(stage, token, id)
        end
      end
    end
  end
end

-- Leases that have run out: a death each of those whose workers are silent. Who is heard did not renew because it
-- knows of no such lease.
for _, member in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', '0', PAGE)) do
  local token, id = string.match(member, '^(%S+) (.*)$')
  local dead = owner(stage, token)
  local task, text
  if id ~= '' then task, text = load(id) end
  if task == false or (id == '' and dead) then
    -- Nobody has put it aside yet: that is this worker's to do.
    if dead and got < most then
      redis.call('XCLAIM', stream, group(stage), consumer, '0', token, 'JUSTID')
      if not text then
        local entry = redis.call('XRANGE', stream, token, token)[1]
        text = entry and table.concat(entry[2], '\n') or ''
      end
      hand(token, id, text, 2)
    elseif not dead then
      drop(stage, token, id)
    end
  elseif task and task.st == 'l' and task.k == token then
    release(stage, token, id, task.t)
    if task.x then
      forget(id, task.t, task.b)
    elseif dead and not alive(dead) then
      died(id, task, ARGV[7])
    else
      enter(id, task)
    end
  else
    drop(stage, token, id)
  end
  if dead and dead ~= consumer and #redis.call('XPENDING', stream, group(stage), '-', '+', '1', dead) == 0 then
    redis.call('XGROUP', 'DELCONSUMER', stream, group(stage), dead)
  end
end

-- Delayed tasks that are due, and those whose version is known by now.
local delayed, newer = key(stage, 'delayed'), key(stage, 'newer')
for zset, till in pairs({ [delayed] = now, [newer] = VERSION }) do
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', zset, '-inf', till, 'LIMIT', '0', PAGE)) do
    redis.call('ZREM', zset, id)
    local task, text = load(id)
    if task and (task.st == 'd' or task.st == 'n') and task.s == stage then
      enter(id, task)
    elseif task == false then
      make(id, nil, text, 2)
    end
  end
end

-- Left to workers who know its version; from its place it is gone already.
local function set_aside(id, task)
  task.k, task.st = nil, 'n'
  redis.call('ZADD', newer, task.v, id)
  save(id, task)
end

-- What must run alone goes first: to a worker that is idle, and another one is asked to become so, by getting nothing.
-- One at a time is asked, for as long as it lives (at least CLEARING: it may not have reported yet): what it has at
-- hand may take long. When it asks again it has not heard, or it is another loop of the same process.
local function alone()
  local clearing = key(stage, 'clearing')
  if idle then redis.call('DEL', clearing) end
  local first = redis.call('ZRANGE', key(stage, 'alone'), '0', '0')[1]
  if not first then return false end
  if not idle then
    local till, holder = string.match(redis.call('GET', clearing) or '', '^(%d+) (.*)$')
    if holder and holder ~= consumer and (tonumber(till) > now or alive(holder)) then return false end
    redis.call('SET', clearing, string.format('%d %s', now + CLEARING, consumer))
    answer[2] = 1
    return true
  end
  redis.call('ZREM', key(stage, 'alone'), first)
  local task, text = load(first)
  count(stage, -1, task and -task.b or 0)
  if task and task.v > VERSION then
    set_aside(first, task)
  elseif task then
    make(first, task, nil, 1)
  elseif text then
    make(first, nil, text, 2)
  end
  return true
end

-- The first of the tenant whose turn it is; false when nobody has one.
local function turn()
  local first = redis.call('ZRANGE', turns, '0', '0', 'WITHSCORES')
  if not first[1] then return false end
  local tenant, tag = first[1], tonumber(first[2])
  if cap > 0 and tonumber(redis.call('HGET', flight, tenant) or '0') + (takes[tenant] or 0) >= cap then
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
  count(stage, -1, task and -task.b or 0)
  if task and task.v > VERSION then
    set_aside(id, task)
  elseif task then
    -- Work in the measure of turns: its bytes and something for being one, less of it for who goes first.
    task.c = (math.min(task.b, 2 ^ 40) + 4096) * SHARE[task.p]
    redis.call('ZINCRBY', turns, task.c, tenant)
    make(id, task, nil, 0)
    taken, takes[tenant] = taken + 1, (takes[tenant] or 0) + 1
  elseif text then
    make(id, nil, text, 2)
    press(tenant, -1, 0)
  end
  return true
end

local paused = redis.call('EXISTS', key('stage', stage, 'paused')) == 1
if not paused then
  if alone() then
    collect(most)
  else
    collect(math.max(most - got, 1))
    -- What is set aside on the way takes time, too.
    local turned = 0
    while got + taken < most and turned < most + tonumber(PAGE) and turn() do turned = turned + 1 end
    if turned == most + tonumber(PAGE) then answer[1] = 1 end
    collect(most + tonumber(PAGE))
  end
elseif next(made) then
  collect(tonumber(PAGE))
end

for _, zset in ipairs({ delayed, leases }) do
  local first = redis.call('ZRANGE', zset, '0', '0', 'WITHSCORES')[2]
  if first then
    local wait = math.max(tonumber(first) - now, 1)
    if answer[1] < 0 or wait < answer[1] then answer[1] = wait end
  end
end
return answer
