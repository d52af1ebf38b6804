-- ARGV: store, the command's token or nothing, how long its turn lasts in milliseconds, then questions.
-- A reply of one view: the server's clock, then for each question fingerprint and answer.

local refusal = replica() or gate(ARGV[1])
if refusal then
  return refusal
end
local token = ARGV[2]
if token ~= '' then
  local turn = redis.call('GET', TURN)
  if turn and turn ~= token then
    return frame({'wait'})
  end
  redis.call('SET', TURN, token, 'PX', ARGV[3])
end
cursor = 4
local reply = {string.format('%.0f', now())}
while cursor <= #ARGV do
  local answer, mark = questions[take()]()
  reply[#reply + 1] = redis.sha1hex(mark)
  reply[#reply + 1] = answer
end
return frame(reply)
