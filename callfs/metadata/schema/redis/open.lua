-- ARGV: the identity of a new store, the format's number, the root's id and record.
-- Makes the store where there is none. The reply: its identity, its format, how many inodes there are, and an import
-- that isn't finished.

local refusal = replica()
if refusal then
  return refusal
end
if redis.call('EXISTS', STORE) == 0 then
  if redis.call('EXISTS', PATHS) == 1 then
    return {err = 'DAMAGED the identity of the store is missing'}
  end
  redis.call('HSET', STORE, 'identity', ARGV[1], 'format', ARGV[2], 'directories', 1)
  redis.call('SET', INODE .. ARGV[3], ARGV[4])
  redis.call('ZADD', PATHS, 0, '/\0' .. ARGV[3])
end
local found = redis.call('HMGET', STORE, 'identity', 'format', 'import', 'id')
local identity = found[1] or found[4]
if not identity then
  return {err = 'DAMAGED the identity of the store is missing'}
end
return frame({identity, found[2] or '', tostring(redis.call('ZCARD', PATHS)), found[3] or ''})
