-- What fills an empty store with the records of another one.

function effects.add_garbage()
  local blob_id, place, at, size, sha256 = take(), take(), take(), take(), take()
  queue_garbage(blob_id, '', place, at, tonumber(size), sha256)
end

function effects.add_condemned()
  local blob_id, at = take(), take()
  redis.call('ZADD', CONDEMNED, 0, blob_id)
  redis.call('ZADD', CONDEMNED_AT, at, blob_id)
end

function effects.mark_import()
  redis.call('HSET', STORE, 'import', take())
end

function effects.take_identity()
  redis.call('HSET', STORE, 'identity', take())
  redis.call('HDEL', STORE, 'import')
end

local function clear_inodes(limit)
  local members = redis.call('ZREVRANGEBYLEX', PATHS, '+', '(/\1', 'LIMIT', 0, limit)
  for _, member in ipairs(members) do
    local _, id = split(member)
    local inode = parse(redis.call('GET', INODE .. id))
    local copies, size = copies_of(inode.blob)
    for _, copy in ipairs(copies) do
      redis.call('ZREM', BLOBS, copy.id .. '\0' .. id)
      redis.call('ZREM', LOCAL_BLOBS, copy.place .. '\0' .. copy.id .. '\0' .. id)
    end
    redis.call('ZREM', PATHS, member)
    redis.call('ZREM', CHILDREN .. inode.parent, inode.name .. '\0' .. id)
    redis.call('DEL', INODE .. id, CHILDREN .. id)
    local kind = inode.directory and 'directories' or 'files'
    counts[kind], counts.bytes = counts[kind] - 1, counts.bytes - size
  end
  return #members
end

local function clear_links(limit)
  local hashes = redis.call('ZRANGE', LINK_EXPIRY, 0, limit - 1)
  for _, hash in ipairs(hashes) do
    drop_link(hash)
  end
  return #hashes
end

local function clear_replications(limit)
  local ages = redis.call('ZRANGE', REPLICATION_AGES, 0, limit - 1)
  for _, age in ipairs(ages) do
    local _, rest = split(age)
    drop_replication(string.sub(rest, 18))
  end
  return #ages
end

-- Nobody knows the numbers of its garbage, so they may be given again.
local function clear_garbage(limit)
  local last = tonumber(redis.call('HGET', STORE, 'next_garbage') or '0')
  local first = math.max(0, last - limit)
  for number = first + 1, last do
    drop_garbage(string.format('%016.0f', number))
  end
  redis.call('HSET', STORE, 'next_garbage', string.format('%.0f', first))
  return last - first
end

local function clear_condemned(limit)
  local blob_ids = redis.call('ZRANGE', CONDEMNED, 0, limit - 1)
  for _, blob_id in ipairs(blob_ids) do
    redis.call('ZREM', CONDEMNED, blob_id)
    redis.call('ZREM', CONDEMNED_AT, blob_id)
  end
  return #blob_ids
end

-- Part of what an unfinished import has brought in.
function effects.clear_import()
  local import_id, limit = take(), tonumber(take())
  if redis.call('HGET', STORE, 'import') ~= import_id then
    return '0'
  end
  local count = clear_links(limit) + clear_replications(limit) + clear_inodes(limit)
  count = count + clear_garbage(limit) + clear_condemned(limit)
  count = count + redis.call('HLEN', INSTANCES)
  redis.call('DEL', INSTANCES)
  return tostring(count)
end
