-- Returns the reports that are still valid.
local reports = {}
for _, consumer in ipairs(redis.call('ZRANGEBYSCORE', key('workers'), '(' .. string.format('%.0f', now), '+inf')) do
  local report = redis.call('GET', key('worker', 'heartbeat', consumer))
  if report then reports[#reports + 1] = report end
end
return reports
