-- ARGV: id and record of each task. Returns 1 for each task that is new.
local results = {}
for i = 1, #ARGV, 2 do
  local id, text = ARGV[i], ARGV[i + 1]
  local job, item = split(id)
  if redis.call('HEXISTS', key('job', job), item) == 1 then
    results[#results + 1] = 0
  else
    local dead = redis.call('HGET', key('dead'), id)
    if dead then remove_dead_letter(string.match(dead, '^(%a+) (.+)$')) redis.call('HDEL', key('dead'), id) end
    local task = decode(text)
    task.sequence = redis.call('INCR', key('seq'))
    count_tenant(task.tenant, 1, task.bytes)
    redis.call('ZADD', key('jobs'), 'LT', task.enqueued_at, job)
    redis.call('ZADD', key('tenant', task.tenant), 'LT', task.enqueued_at, job)
    enqueue_or_hold(id, task)
    results[#results + 1] = 1
  end
end
return results
