-- ARGV: tenant. Returns items, bytes and the age (ms) of the oldest: of the tenant, then of all tenants.
local tenant = ARGV[1]
local load = redis.call('HMGET', key('load'), 'i:' .. tenant, 'b:' .. tenant, 'items', 'bytes')
local function age(zset)
  for _ = 1, 50 do
    local first = redis.call('ZRANGE', zset, '0', '0', 'WITHSCORES')
    if not first[1] then return 0 end
    if redis.call('EXISTS', key('job', first[1])) == 1 then return math.max(now - tonumber(first[2]), 0) end
    redis.call('ZREM', zset, first[1])
  end
  return 0
end
return {
  tonumber(load[1] or '0'), tonumber(load[2] or '0'), age(key('tenant', tenant)),
  tonumber(load[3] or '0'), tonumber(load[4] or '0'), age(key('jobs')),
}
