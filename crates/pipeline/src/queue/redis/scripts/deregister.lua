-- Removes a worker, one page of its leases at a time. ARGV: consumer. Its tasks go back without a charge. Returns 1 if
-- there are more.
local consumer = ARGV[1]
local more = 0
allow_when_oom()
for _, stage in ipairs(STAGES) do
  local pending = redis.pcall('XPENDING', key(stage), group(stage), '-', '+', '200', consumer)
  if not pending.err then
    for _, entry in ipairs(pending) do
      local token = entry[1]
      local found = redis.call('XRANGE', key(stage), token, token)[1]
      local id = found and field(found[2], 't') or ''
      local task
      if split(id) then task = load(id) end
      if task and task.token == token then
        end_lease(stage, token, id, task.tenant)
        if task.cancelled then remove(id, task.tenant, task.bytes) else enqueue(id, task) end
      elseif found and (task == false or not split(id)) then
        -- It cannot be read: its lease expires now, and the next worker handles it.
        redis.call('ZADD', key(stage, 'leases'), 0, token .. ' ' .. (split(id) and id or ''))
      else
        end_lease_entry(stage, token, id)
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
