-- Cancels one page of a job. ARGV: job, cursor. Returns the next cursor ('0' at the end) and how many were removed.
local job = ARGV[1]
local page = redis.call('HSCAN', key('job', job), ARGV[2], 'COUNT', '500')
local removed = 0
allow_when_oom()
for i = 1, #page[2], 2 do
  local id = job .. ':' .. page[2][i]
  local task = load(id)
  if task and task.state == LEASED then
    -- Its worker learns it when it settles.
    task.cancelled = 1
    save(id, task)
  elseif task then
    dequeue(id, task)
    remove(id, task.tenant, task.bytes)
    removed = removed + 1
  end
end
return { page[1], removed }
