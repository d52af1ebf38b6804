-- What became of a command whose reply was lost. ARGV: store, command id, and for how long what was replied to it is
-- there for certain, an instant of the server's clock.
-- When it hasn't happened it is withdrawn, so that it never will: also where its time is over already, because the
-- server's clock may be set back. Later than that instant nobody knows whether it has.

local refusal = gate(ARGV[1])
if refusal then
  return refusal
end
local result = RESULT .. ARGV[2]
local before = redis.call('GET', result)
if before then
  return before
end
if now() >= tonumber(ARGV[3]) then
  return frame({'forgotten'})
end
local withdrawn = frame({'withdrawn'})
redis.call('SET', result, withdrawn, 'EX', 3600)
return withdrawn
