-- Returns for each stage: waiting, held, delayed, leased and dead tasks, waiting bytes, the longest wait (ms) among the
-- first tasks of a thousand tenants, and tasks of a newer version.
local results = {}
for _, stage in ipairs(STAGES) do
  local oldest = now
  local function update_oldest(zset)
    local id = redis.call('ZRANGE', zset, '0', '0')[1]
    local task = id and load(id)
    if task and number(task.since) and task.since < oldest then oldest = task.since end
  end
  for _, zset in ipairs({ 'turns', 'full' }) do
    for _, tenant in ipairs(redis.call('ZRANGE', key(stage, zset), '0', '999')) do
      update_oldest(key(stage, 'tenant', tenant))
    end
  end
  update_oldest(key(stage, 'alone'))
  local state = redis.call('HMGET', key(stage, 'state'), 'items', 'bytes')
  for _, value in ipairs({
    tonumber(state[1] or '0'), redis.call('ZCARD', key(stage, 'held')), redis.call('ZCARD', key(stage, 'delayed')),
    redis.call('ZCARD', key(stage, 'leases')), redis.call('XLEN', key(stage, 'dlq')), tonumber(state[2] or '0'),
    now - oldest, redis.call('ZCARD', key(stage, 'newer')),
  }) do
    results[#results + 1] = value
  end
end
return results
