-- ARGV: ids. Answers 1 for those that are in the queue or among the dead letters.
local answers = {}
for i, id in ipairs(ARGV) do
  local job, item = split(id)
  local live = redis.call('HEXISTS', key('job', job), item) == 1
  answers[i] = (live or redis.call('HEXISTS', key('dead'), id) == 1) and 1 or 0
end
return answers
