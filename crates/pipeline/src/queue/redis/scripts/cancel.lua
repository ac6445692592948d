-- One page. ARGV: job, cursor. Answers the next cursor ('0' at the end) and how many were taken out.
local job = ARGV[1]
local page = redis.call('HSCAN', key('job', job), ARGV[2], 'COUNT', '500')
local taken = 0
also_when_full()
for i = 1, #page[2], 2 do
  local id = job .. ':' .. page[2][i]
  local task = load(id)
  if task and task.st == 'l' then
    -- Its worker is told when it settles.
    task.x = 1
    save(id, task)
  elseif task then
    withdraw(id, task)
    forget(id, task.t, task.b)
    taken = taken + 1
  end
end
return { page[1], taken }
