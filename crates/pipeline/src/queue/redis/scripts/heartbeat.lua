-- ARGV: consumer, report, how long it is valid (ms), maximum count and age (ms) of dead letters, and how long (ms) all
-- workers may be silent before the time is not counted. Silent workers are removed from the groups when nothing is
-- pending for them, because a group that removes a consumer also removes its pending entries.
local consumer = ARGV[1]
record_heartbeat(tonumber(ARGV[6]))
redis.call('SET', key('worker', 'heartbeat', consumer), ARGV[2], 'PX', ARGV[3])
redis.call('ZADD', key('workers'), now + tonumber(ARGV[3]), consumer)
for _, silent in ipairs(redis.call('ZRANGEBYSCORE', key('workers'), '-inf', now, 'LIMIT', '0', '20')) do
  local free = true
  for _, stage in ipairs(STAGES) do
    local pending = redis.pcall('XPENDING', key(stage), group(stage), '-', '+', '1', silent)
    free = free and (pending.err or #pending == 0)
  end
  if free then
    for _, stage in ipairs(STAGES) do redis.pcall('XGROUP', 'DELCONSUMER', key(stage), group(stage), silent) end
    redis.call('ZREM', key('workers'), silent)
  end
end
for _, stage in ipairs(STAGES) do trim_dead_letters(stage, tonumber(ARGV[4]), tonumber(ARGV[5])) end
return 0
