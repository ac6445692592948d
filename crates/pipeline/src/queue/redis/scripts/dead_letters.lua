-- Removes a dead letter. ARGV: stage, entry, 1 to enqueue its task again or 0. Returns 1, or 0 if there is no such dead
-- letter or its task cannot be read.
local stage, entry, retry = ARGV[1], ARGV[2], ARGV[3] == '1'
local found = redis.call('XRANGE', key(stage, 'dlq'), entry, entry)[1]
if not found then return 0 end
local id, text = field(found[2], 'id'), field(found[2], 'task')
local ok, task = pcall(decode, text or '')
ok = ok and id and is_valid(task)
if retry and not ok then return 0 end
remove_dead_letter(stage, entry, id)
if retry then
  local job, item = split(id)
  if redis.call('HEXISTS', key('job', job), item) == 0 then
    task.attempts, task.crashes = 0, 0
    count_tenant(task.tenant, 1, task.bytes)
    redis.call('ZADD', key('jobs'), 'LT', task.enqueued_at, job)
    redis.call('ZADD', key('tenant', task.tenant), 'LT', task.enqueued_at, job)
    enqueue_or_hold(id, task)
  end
end
return 1
