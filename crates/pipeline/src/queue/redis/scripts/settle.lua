-- ARGV: how many dead letters are kept, how long (ms); then stage, consumer, token, id, outcome and its two values of
-- each lease. Answers 0 done, 1 lost, 2 cancelled.
local most, age = tonumber(ARGV[1]), tonumber(ARGV[2])
local answers = {}

local function settle(stage, id, task, outcome, one, two)
  if outcome == 'next' and NEXT[stage] then
    press(task.t, 0, tonumber(one) - task.b)
    task.s, task.b, task.a, task.d, task.c = NEXT[stage], tonumber(one), 0, 0, nil
    admit(id, task)
  elseif outcome == 'next' or outcome == 'finished' then
    forget(id, task.t, task.b)
  elseif outcome == 'later' then
    if two == '1' then task.a, task.c = task.a + 1, nil end
    delay(id, task, tonumber(one))
    ring(stage)
  elseif outcome == 'back' then
    enter(id, task)
  elseif outcome == 'died' then
    died(id, task, one, tonumber(two))
    ring(stage)
  else
    bury(id, task, one, two)
    trim(stage, most, age)
  end
end

for i = 3, #ARGV, 7 do
  local stage, consumer, token, id = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local task = load(id)
  if not task or task.k ~= token or owner(stage, token) ~= consumer then
    answers[#answers + 1] = 1
  else
    release(stage, token, id, task.t)
    if task.x then
      forget(id, task.t, task.b)
      answers[#answers + 1] = 2
    else
      settle(stage, id, task, ARGV[i + 4], ARGV[i + 5], ARGV[i + 6])
      answers[#answers + 1] = 0
    end
  end
end
return answers
