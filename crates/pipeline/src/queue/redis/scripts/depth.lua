-- Answers for each stage: waiting, held, delayed, leased, dead, bytes that wait, how long (ms) the longest waiting of
-- those has waited that are next of their tenants (of a thousand tenants), of a newer version.
local answers = {}
for _, stage in ipairs(STAGES) do
  local oldest = now
  local function look(zset)
    local id = redis.call('ZRANGE', zset, '0', '0')[1]
    local task = id and load(id)
    if task and number(task.w) and task.w < oldest then oldest = task.w end
  end
  for _, of in ipairs({ 'turns', 'full' }) do
    for _, tenant in ipairs(redis.call('ZRANGE', key(stage, of), '0', '999')) do look(key(stage, 'tenant', tenant)) end
  end
  look(key(stage, 'alone'))
  local state = redis.call('HMGET', key(stage, 'state'), 'items', 'bytes')
  for _, value in ipairs({
    tonumber(state[1] or '0'), redis.call('ZCARD', key(stage, 'held')), redis.call('ZCARD', key(stage, 'delayed')),
    redis.call('ZCARD', key(stage, 'leases')), redis.call('XLEN', key(stage, 'dlq')), tonumber(state[2] or '0'),
    now - oldest, redis.call('ZCARD', key(stage, 'newer')),
  }) do
    answers[#answers + 1] = value
  end
end
return answers
