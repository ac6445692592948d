-- One page. ARGV: job, cursor, rank. Answers the next cursor ('0' at the end) and how many moved.
local job, rank = ARGV[1], tonumber(ARGV[3])
local page = redis.call('HSCAN', key('job', job), ARGV[2], 'COUNT', '500')
local moved = 0
also_when_full()
for i = 1, #page[2], 2 do
  local id = job .. ':' .. page[2][i]
  local task = load(id)
  if task and task.p ~= rank then
    task.p = rank
    save(id, task)
    if task.st == 'w' then
      redis.call('ZADD', key(task.s, 'tenant', task.t), 'XX', rank * RANK + task.q, id)
    end
    if task.st ~= 'l' then moved = moved + 1 end
  end
end
return { page[1], moved }
