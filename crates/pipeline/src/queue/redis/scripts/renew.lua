-- ARGV: for how long (ms); then stage, consumer, token, id of each lease. Returns 1 for each lease that is still held
-- and not cancelled.
local by = tonumber(ARGV[1])
local results = {}
for i = 2, #ARGV, 4 do
  local stage, consumer, token, id = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local task = load(id)
  local held = task and task.token == token and not task.cancelled and owner(stage, token) == consumer
  if held then
    -- JUSTID: a renewal does not count as a delivery.
    redis.call('XCLAIM', key(stage), group(stage), consumer, '0', token, 'JUSTID')
    redis.call('ZADD', key(stage, 'leases'), 'XX', now + by, token .. ' ' .. id)
  end
  results[#results + 1] = held and 1 or 0
end
return results
