-- Changes the priority of one page of a job. ARGV: job, cursor, rank. Returns the next cursor ('0' at the end) and how
-- many tasks changed.
local job, rank = ARGV[1], tonumber(ARGV[3])
local page = redis.call('HSCAN', key('job', job), ARGV[2], 'COUNT', '500')
local moved = 0
allow_when_oom()
for i = 1, #page[2], 2 do
  local id = job .. ':' .. page[2][i]
  local task = load(id)
  if task and task.rank ~= rank then
    task.rank = rank
    save(id, task)
    if task.state == WAITING then
      redis.call('ZADD', key(task.stage, 'tenant', task.tenant), 'XX', rank * RANK + task.sequence, id)
    end
    if task.state ~= LEASED then moved = moved + 1 end
  end
end
return { page[1], moved }
