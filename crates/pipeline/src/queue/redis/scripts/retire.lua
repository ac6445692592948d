-- One page. ARGV: consumer. What it has goes back, uncharged. Answers 1 when there is more.
local consumer = ARGV[1]
local more = 0
also_when_full()
for _, stage in ipairs(STAGES) do
  local pending = redis.pcall('XPENDING', key(stage), group(stage), '-', '+', '200', consumer)
  if not pending.err then
    for _, entry in ipairs(pending) do
      local token = entry[1]
      local found = redis.call('XRANGE', key(stage), token, token)[1]
      local id = found and field(found[2], 't') or ''
      local task
      if split(id) then task = load(id) end
      if task and task.k == token then
        release(stage, token, id, task.t)
        if task.x then forget(id, task.t, task.b) else enter(id, task) end
      elseif found and (task == false or not split(id)) then
        -- Cannot be read: the next who asks finds that it has run out.
        redis.call('ZADD', key(stage, 'leases'), 0, token .. ' ' .. (split(id) and id or ''))
      else
        drop(stage, token, id)
      end
    end
    if #pending == 200 then
      more = 1
    elseif #redis.call('XPENDING', key(stage), group(stage), '-', '+', '1', consumer) == 0 then
      redis.call('XGROUP', 'DELCONSUMER', key(stage), group(stage), consumer)
    end
  end
end
if more == 0 then
  redis.call('DEL', key('worker', 'heartbeat', consumer))
  redis.call('ZREM', key('workers'), consumer)
end
return more
