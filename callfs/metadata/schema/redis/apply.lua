-- ARGV: store, command id, the last instant of the server's clock at which it may happen, the token of its turn or
-- nothing, then counted: facts with their fingerprints, effects, and ids whose replies have arrived.
-- The reply says what happened: done with results, changed, late, wait; or what was replied to this id before.

local refusal = gate(ARGV[1])
if refusal then
  return refusal
end
local result = RESULT .. ARGV[2]
local before = redis.call('GET', result)
if before then
  return before
end
if now() > tonumber(ARGV[3]) then
  return frame({'late'})
end
local token, turn = ARGV[4], redis.call('GET', TURN)
if turn and turn ~= token then
  return frame({'wait'})
end

cursor = 5
for _ = 1, tonumber(take()) do
  local _, mark = questions[take()]()
  if redis.sha1hex(mark) ~= take() then
    return frame({'changed'})
  end
end

-- From here on it is written, and nothing refuses any more.
local reply = {'done'}
for _ = 1, tonumber(take()) do
  local answer = effects[take()]()
  if answer then
    reply[#reply + 1] = answer
  end
end
flush_garbage()
for name, change in pairs(counts) do
  if change ~= 0 then
    redis.call('HINCRBY', STORE, name, string.format('%.0f', change))
  end
end
redis.call('HINCRBY', STORE, 'changes', 1)
local packed = frame(reply)
redis.call('SET', result, packed, 'EX', 3600)
if turn then
  redis.call('DEL', TURN)
end
for _ = 1, tonumber(take()) do
  redis.call('DEL', RESULT .. take())
end
return packed
