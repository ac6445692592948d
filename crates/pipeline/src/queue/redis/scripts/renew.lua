-- ARGV: for how long; then stage, consumer, token, id of each lease. Answers 1 for those that are held and wanted.
local by = tonumber(ARGV[1])
local answers = {}
for i = 2, #ARGV, 4 do
  local stage, consumer, token, id = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local task = load(id)
  local held = task and task.k == token and not task.x and owner(stage, token) == consumer
  if held then
    -- JUSTID: being at work is no delivery.
    redis.call('XCLAIM', key(stage), group(stage), consumer, '0', token, 'JUSTID')
    redis.call('ZADD', key(stage, 'leases'), 'XX', now + by, token .. ' ' .. id)
  end
  answers[#answers + 1] = held and 1 or 0
end
return answers
