-- The mode of a stage: 0 (running), 1 (paused) or 2 (draining). Without ARGV: returns the mode of each stage. ARGV:
-- stage, mode. Sets the mode; unless the stage drains now, enqueues one page of its held tasks. Returns the number of
-- tasks that are still held, or 0 if the stage drains.
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
