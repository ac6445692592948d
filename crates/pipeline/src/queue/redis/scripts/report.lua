-- ARGV: consumer, report, how long it holds (ms), how many dead letters are kept, how long, how long (ms) a silence of
-- all is none. Workers that are silent leave the groups, once nothing is pending for them: a group that drops a
-- consumer drops what it had.
local consumer = ARGV[1]
hear(tonumber(ARGV[6]))
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
for _, stage in ipairs(STAGES) do trim(stage, tonumber(ARGV[4]), tonumber(ARGV[5])) end
return 0
