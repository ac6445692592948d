-- Puts aside what cannot be read. ARGV: stage, consumer, token, id ('' when the entry names none), code, message,
-- what was found (perhaps encrypted), how many dead letters are kept, how long. Answers 1 when it was this consumer's.
local stage, consumer, token, id = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if owner(stage, token) ~= consumer then return 0 end
drop(stage, token, id)
redis.call('XADD', key(stage, 'dlq'), '*', 'at', id, 'code', ARGV[5], 'message', ARGV[6], 'raw', ARGV[7])
-- The record is gone too: the document is not held any more and can be enqueued again.
if id ~= '' and load(id) == false then forget(id) end
trim(stage, tonumber(ARGV[8]), tonumber(ARGV[9]))
return 1
