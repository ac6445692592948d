-- ARGV: nothing: answers 1 (paused), 2 (drains) or 0 for each stage. Or stage and one of these: sets it, lets in a page
-- of what was held, answers how much is left.
if #ARGV == 0 then
  local answers = {}
  for i, stage in ipairs(STAGES) do
    answers[i] = redis.call('EXISTS', key('stage', stage, 'paused')) == 1 and 1
      or redis.call('EXISTS', key('stage', stage, 'drain')) * 2
  end
  return answers
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
  if task and task.st == 'h' then enter(page[i], task) end
end
ring(stage)
return redis.call('ZCARD', key(stage, 'held'))
