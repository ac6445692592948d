-- ARGV: maximum count and age (ms) of dead letters; then stage, consumer, token, id, outcome and its two values of each
-- lease. Returns 0 (done), 1 (lost) or 2 (cancelled) for each.
local max_count, max_age = tonumber(ARGV[1]), tonumber(ARGV[2])
local results = {}

local function settle(stage, id, task, outcome, first, second)
  if outcome == 'next' and NEXT[stage] then
    count_tenant(task.tenant, 0, tonumber(first) - task.bytes)
    task.stage, task.bytes, task.attempts, task.crashes, task.cost = NEXT[stage], tonumber(first), 0, 0, nil
    enqueue_or_hold(id, task)
  elseif outcome == 'next' or outcome == 'finished' then
    remove(id, task.tenant, task.bytes)
  elseif outcome == 'later' then
    if second == '1' then task.attempts, task.cost = task.attempts + 1, nil end
    delay(id, task, tonumber(first))
    wake(stage)
  elseif outcome == 'back' then
    enqueue(id, task)
  elseif outcome == 'died' then
    record_crash(id, task, first, tonumber(second))
    wake(stage)
  else
    move_to_dead_letters(id, task, first, second)
    trim_dead_letters(stage, max_count, max_age)
  end
end

for i = 3, #ARGV, 7 do
  local stage, consumer, token, id = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local task = load(id)
  if not task or task.token ~= token or owner(stage, token) ~= consumer then
    results[#results + 1] = 1
  else
    end_lease(stage, token, id, task.tenant)
    if task.cancelled then
      remove(id, task.tenant, task.bytes)
      results[#results + 1] = 2
    else
      settle(stage, id, task, ARGV[i + 4], ARGV[i + 5], ARGV[i + 6])
      results[#results + 1] = 0
    end
  end
end
return results
