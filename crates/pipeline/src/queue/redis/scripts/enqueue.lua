-- ARGV: id and record of each task. Answers 1 for those that are new.
local answers = {}
for i = 1, #ARGV, 2 do
  local id, text = ARGV[i], ARGV[i + 1]
  local job, item = split(id)
  if redis.call('HEXISTS', key('job', job), item) == 1 then
    answers[#answers + 1] = 0
  else
    local dead = redis.call('HGET', key('dead'), id)
    if dead then exhume(string.match(dead, '^(%a+) (.+)$')) redis.call('HDEL', key('dead'), id) end
    local task = cjson.decode(text)
    task.q = redis.call('INCR', key('seq'))
    press(task.t, 1, task.b)
    redis.call('ZADD', key('jobs'), 'LT', task.e, job)
    redis.call('ZADD', key('tenant', task.t), 'LT', task.e, job)
    admit(id, task)
    answers[#answers + 1] = 1
  end
end
return answers
