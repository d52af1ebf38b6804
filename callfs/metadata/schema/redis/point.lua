-- Questions about one thing. ARGV: store, the question's name, its arguments.

local refusal = replica() or gate(ARGV[1])
if refusal then
  return refusal
end
local reads = {}

function reads.check()
  return frame({})
end

function reads.get(path)
  local id = id_at(path)
  return frame(id and {id, redis.call('GET', INODE .. id)} or {})
end

function reads.by_id(id)
  local record = redis.call('GET', INODE .. id)
  local path = record and path_of(id)
  return frame(path and {path, record} or {})
end

function reads.link(hash)
  return frame({redis.call('HGET', LINKS, hash) or ''})
end

function reads.instances()
  return frame(redis.call('HGETALL', INSTANCES))
end

function reads.statistics()
  local counts = redis.call('HMGET', STORE, 'files', 'directories', 'bytes', 'changes')
  for i = 1, 4 do
    counts[i] = counts[i] or '0'
  end
  counts[5] = tostring(redis.call('HLEN', LINKS))
  counts[6] = tostring(redis.call('HLEN', GARBAGE))
  counts[7] = tostring(redis.call('HLEN', REPLICATIONS))
  return frame(counts)
end

return reads[ARGV[2]](ARGV[3], ARGV[4])
