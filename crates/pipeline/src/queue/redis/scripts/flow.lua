-- Without ARGV: returns 1 (paused), 2 (draining) or 0 for each stage. ARGV: stage and one of these: sets it, enqueues
-- one page of the held tasks, and returns how many are left.
if #ARGV == 0 then
  local results = {}
  for i, stage in ipairs(STAGES) do
    results[i] = redis.call('EXISTS', key('stage', stage, 'paused')) == 1 and 1
      or redis.call('EXISTS', key('stage', stage, 'drain')) * 2
  end
  return results
end
local stage = ARGV[1]
redis.call('DEL', key('stage', stage, 'paused'), key('stage', stage, 'drain'))
if ARGV[2] == '1' then redis.call('SET', key('stage', stage, 'paused'), '1') end
if ARGV[2] == '2' then
  redis.call('SET', key('stage', stage, 'drain'), '1')
  return 0
end
local page = redis.call('ZPOPMIN', key(stage, 'held'), '500')
for i = 1, #page, 2 do
  local task = load(page[i])
  if task and task.state == HELD then enqueue(page[i], task) end
end
wake(stage)
return redis.call('ZCARD', key(stage, 'held'))
