"""
The Lua scripts of the locks in Redis.

A lock is a key with a time to live whose value is the holder's token and fencing number. Who waits has a ticket
in a sorted set by order of arrival, and keeps it alive by asking again: a ticket that nobody asked for in time is
dropped, so a node that died in the queue doesn't hold up the others. All times are the server's.
"""

from __future__ import annotations

from callfs.redis_pool import Script

_COMMON = """
local base = KEYS[1]
local function keys_of(name)
  return base .. 'l:' .. name, base .. 'q:' .. name, base .. 't:' .. name
end
local function now()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end
local function is_mine(lock, token)
  local value = redis.call('GET', lock)
  return value and string.sub(value, 1, #token) == token and value
end
"""

ACQUIRE = Script(
    _COMMON
    + """
-- ARGV: the name, the caller's token, the lease in milliseconds, the ticket's life in milliseconds or 0 for none.
-- The reply: the fencing number, or nothing.
local lock, queue, tickets = keys_of(ARGV[1])
local token, lease, life = ARGV[2], ARGV[3], tonumber(ARGV[4])
local mine = is_mine(lock, token)
if mine then
  redis.call('PEXPIRE', lock, lease)
  return string.sub(mine, #token + 2)
end
local time = now()
local first
while true do
  first = redis.call('ZRANGE', queue, 0, 0)[1]
  if not first or first == token or tonumber(redis.call('ZSCORE', tickets, first) or 0) >= time then
    break
  end
  redis.call('ZREM', queue, first)
  redis.call('ZREM', tickets, first)
end
if redis.call('EXISTS', lock) == 0 and (not first or first == token) then
  -- More than any number before, also when the server has lost its data.
  local before = tonumber(redis.call('GET', base .. 'fencing') or 0)
  local fencing = string.format('%.0f', math.max(before + 1, time))
  redis.call('SET', base .. 'fencing', fencing)
  redis.call('SET', lock, token .. ' ' .. fencing, 'PX', lease)
  redis.call('ZREM', queue, token)
  redis.call('ZREM', tickets, token)
  return fencing
end
if life > 0 then
  if not redis.call('ZSCORE', queue, token) then
    redis.call('ZADD', queue, redis.call('INCR', base .. 'arrivals'), token)
  end
  redis.call('ZADD', tickets, string.format('%.0f', time + life * 1000), token)
  redis.call('PEXPIRE', queue, life * 10)
  redis.call('PEXPIRE', tickets, life * 10)
end
return ''
"""
)

RELEASE = Script(
    _COMMON
    + """
-- ARGV: the channel, then names and tokens in turn. Only the holder's token gives a lock back.
for i = 2, #ARGV, 2 do
  local lock, queue, tickets = keys_of(ARGV[i])
  local freed = is_mine(lock, ARGV[i + 1])
  if freed then
    redis.call('DEL', lock)
  end
  local left = redis.call('ZREM', queue, ARGV[i + 1])
  redis.call('ZREM', tickets, ARGV[i + 1])
  if (freed or left == 1) and redis.call('EXISTS', queue) == 1 then
    redis.call('PUBLISH', ARGV[1], ARGV[i])
  end
end
return ''
"""
)

RENEW = Script(
    _COMMON
    + """
-- ARGV: the lease in milliseconds, then names and tokens in turn. The reply: 1 for each that is still held, else 0.
local reply = {}
for i = 2, #ARGV, 2 do
  local lock = keys_of(ARGV[i])
  local held = is_mine(lock, ARGV[i + 1])
  if held then
    redis.call('PEXPIRE', lock, ARGV[1])
  end
  reply[#reply + 1] = held and '1' or '0'
end
return table.concat(reply)
"""
)
