-- ARGV: ids. Returns 1 for each task that is in the queue or among the dead letters.
local results = {}
for i, id in ipairs(ARGV) do
  local job, item = split(id)
  local live = redis.call('HEXISTS', key('job', job), item) == 1
  results[i] = (live or redis.call('HEXISTS', key('dead'), id) == 1) and 1 or 0
end
return results
