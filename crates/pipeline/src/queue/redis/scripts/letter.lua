-- ARGV: stage, entry, 1 to do its task again or 0 to remove it. Answers 1, or 0 when it is gone (or cannot be done).
local stage, entry, again = ARGV[1], ARGV[2], ARGV[3] == '1'
local found = redis.call('XRANGE', key(stage, 'dlq'), entry, entry)[1]
if not found then return 0 end
local id, text = field(found[2], 'id'), field(found[2], 'task')
local ok, task = pcall(cjson.decode, text or '')
ok = ok and id and sound(task)
if again and not ok then return 0 end
exhume(stage, entry, id)
if again then
  local job, item = split(id)
  if redis.call('HEXISTS', key('job', job), item) == 0 then
    task.a, task.d = 0, 0
    press(task.t, 1, task.b)
    redis.call('ZADD', key('jobs'), 'LT', task.e, job)
    redis.call('ZADD', key('tenant', task.t), 'LT', task.e, job)
    admit(id, task)
  end
end
return 1
