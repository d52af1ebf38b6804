-- What became of a command whose reply was lost. ARGV: store, command id, the last instant at which it may happen.
-- When it hasn't happened it is withdrawn, so that it never will.

local refusal = gate(ARGV[1])
if refusal then
  return refusal
end
local result = RESULT .. ARGV[2]
local before = redis.call('GET', result)
if before then
  return before
end
local withdrawn = frame({'withdrawn'})
if now() <= tonumber(ARGV[3]) then
  redis.call('SET', result, withdrawn, 'EX', 3600)
end
return withdrawn
