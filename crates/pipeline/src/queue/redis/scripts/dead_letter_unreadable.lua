-- Moves a task that cannot be read to the dead letters. ARGV: stage, consumer, token, id ('' if the entry has none),
-- code, message, what was found (perhaps encrypted), maximum count and age (ms) of dead letters. Returns 1 if the lease
-- was this consumer's.
local stage, consumer, token, id = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if owner(stage, token) ~= consumer then return 0 end
end_lease_entry(stage, token, id)
redis.call('XADD', key(stage, 'dlq'), '*', 'at', id, 'code', ARGV[5], 'message', ARGV[6], 'raw', ARGV[7])
-- The record is removed, too, so that the reconciler can enqueue the document again.
if id ~= '' and load(id) == false then remove(id) end
trim_dead_letters(stage, tonumber(ARGV[8]), tonumber(ARGV[9]))
return 1
