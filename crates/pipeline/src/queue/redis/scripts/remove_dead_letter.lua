-- Removes a dead letter. ARGV: stage, entry. Returns 1, or 0 if there is no such dead letter.
local stage, entry = ARGV[1], ARGV[2]
local found = redis.call('XRANGE', key(stage, 'dlq'), entry, entry)[1]
if not found then return 0 end
remove_dead_letter(stage, entry, field(found[2], 'id'))
return 1
