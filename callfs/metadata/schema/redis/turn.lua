-- Ends a turn that nothing came of. ARGV: store, the turn's token.

local refusal = gate(ARGV[1])
if refusal then
  return refusal
end
if redis.call('GET', TURN) == ARGV[2] then
  redis.call('DEL', TURN)
end
return ''
