-- What a decision orders. Nothing here can fail but for want of memory, which Redis refuses at a script's first
-- write and never after it. What gives memory back begins with a write that is never refused.

local counts = {files = 0, directories = 0, bytes = 0}

local function add_blob(id, blob)
  local copies, size = copies_of(blob)
  for _, copy in ipairs(copies) do
    local member = copy.id .. '\0' .. id
    redis.call('ZADD', BLOBS, 0, member)
    if is_local(copy.place) then
      redis.call('ZADD', LOCAL_BLOBS, 0, copy.place .. '\0' .. member)
    end
  end
  counts.bytes = counts.bytes + size
end

-- Takes a blob's entry out of the replication queue; gives it, if there was one.
local function drop_replication(blob_id)
  local record = redis.call('HGET', REPLICATIONS, blob_id)
  if not record then
    return nil
  end
  local entry = replication_in(record)
  redis.call('ZREM', REPLICATIONS_OF .. entry.by, blob_id)
  redis.call('ZREM', REPLICATION_AGES, age_of(blob_id, entry))
  redis.call('ZREM', REPLICATION_FAILING, entry.by .. '\0' .. blob_id)
  redis.call('ZREM', REPLICATION_TARGETS, entry.place .. '\0' .. blob_id)
  redis.call('HDEL', REPLICATIONS, blob_id)
  return entry
end

-- The instant comes as a text, too: none is rounded but in the order of the queue.
local function put_replication(blob_id, entry, due_at)
  redis.call('HSET', REPLICATIONS, blob_id, struct.pack(REPLICATION, entry.attempts, entry.due, entry.queued,
    #entry.inode, entry.inode, #entry.by, entry.by, #entry.place, entry.place))
  redis.call('ZADD', REPLICATIONS_OF .. entry.by, due_at, blob_id)
  redis.call('ZADD', REPLICATION_AGES, 0, age_of(blob_id, entry))
  redis.call('ZADD', REPLICATION_TARGETS, 0, entry.place .. '\0' .. blob_id)
  if entry.attempts > 0 then
    redis.call('ZADD', REPLICATION_FAILING, 0, entry.by .. '\0' .. blob_id)
  end
end

local any_replications

-- Before anything is queued by the same script.
local function drop_replication_of(copies)
  if any_replications == nil then
    any_replications = redis.call('EXISTS', REPLICATIONS) == 1
  end
  if any_replications and copies[1] then
    drop_replication(copies[1].id)
  end
end

-- Blobs on their way to the garbage queue, written many at a time.
local buried = {}

local function flush_garbage()
  local count = #buried
  if count == 0 then
    return
  end
  local number = redis.call('HINCRBY', STORE, 'next_garbage', count) - count
  local members, entries, numbers, queues, locals = {}, {}, {}, {}, {}
  for i, one in ipairs(buried) do
    local text = string.format('%016.0f', number + i)
    members[i] = one.id .. '\0' .. one.inode
    entries[2 * i - 1], entries[2 * i] = text, one.record
    numbers[2 * i - 1], numbers[2 * i] = one.id, text
    if is_local(one.place) then
      locals[#locals + 1] = one.place .. '\0' .. members[i]
    end
    local queue = queues[one.place] or {}
    queue[#queue + 1] = one.at
    queue[#queue + 1] = text
    queues[one.place] = queue
  end
  redis.call('ZREM', BLOBS, unpack(members))
  if #locals > 0 then
    redis.call('ZREM', LOCAL_BLOBS, unpack(locals))
  end
  redis.call('HSET', GARBAGE, unpack(entries))
  redis.call('HSET', GARBAGE_BLOBS, unpack(numbers))
  for place, queue in pairs(queues) do
    redis.call('ZADD', GARBAGE_OF .. place, unpack(queue))
  end
  buried = {}
end

-- An inode, or none, has this blob no more. The instant comes and goes as a text: none is rounded.
local function queue_garbage(blob_id, inode_id, place, at, size, sha256)
  buried[#buried + 1] = {
    id = blob_id, inode = inode_id, place = place, at = at,
    record = struct.pack('>Hc0Hc0Hc0i8Hc0', #at, at, #place, place, #blob_id, blob_id, size, #sha256, sha256),
  }
  if #buried == CHUNK then
    flush_garbage()
  end
end

local function buried_in(record)
  local _, place, blob_id = struct.unpack('>Hc0Hc0Hc0', record)
  return blob_id, place
end

-- Takes an entry out of the garbage queue; whether there was one.
local function drop_garbage(number)
  local record = redis.call('HGET', GARBAGE, number)
  if not record then
    return false
  end
  local blob_id, place = buried_in(record)
  redis.call('ZREM', GARBAGE_OF .. place, number)
  redis.call('HDEL', GARBAGE_BLOBS, blob_id)
  redis.call('HDEL', GARBAGE, number)
  return true
end

-- All copies of a blob go to the garbage queue, and no copy is made of it any more.
local function bury(id, blob, local_at, elsewhere_at)
  local copies, size, sha256 = copies_of(blob)
  drop_replication_of(copies)
  table.sort(copies, function(a, b) return a.id < b.id end)
  for _, copy in ipairs(copies) do
    local at = is_local(copy.place) and local_at or elsewhere_at
    queue_garbage(copy.id, id, copy.place, at, size, sha256)
  end
  counts.bytes = counts.bytes - size
end

local function drop_link(hash)
  redis.call('ZREM', LINK_EXPIRY, hash)
  redis.call('ZREM', LINK_USE, hash)
  local record = redis.call('HGET', LINKS, hash)
  if record then
    local _, inode_id = struct.unpack('>c24Hc0', record)
    redis.call('SREM', LINKS_OF .. inode_id, hash)
    redis.call('HDEL', LINKS, hash)
  end
end

local any_links

local function drop_links_of(id)
  if any_links == nil then
    any_links = redis.call('EXISTS', LINKS) == 1
  end
  if not any_links then
    return
  end
  for _, hash in ipairs(redis.call('SMEMBERS', LINKS_OF .. id)) do
    drop_link(hash)
  end
end

local function drop_inode(id, inode, local_at, elsewhere_at)
  if inode.directory then
    counts.directories = counts.directories - 1
  else
    counts.files = counts.files - 1
    bury(id, inode.blob, local_at, elsewhere_at)
    drop_links_of(id)
  end
end

local effects = {}

function effects.touch()
  local id, instants = take(), take()
  local generation = struct.unpack('>i8', redis.call('GETRANGE', INODE .. id, 16, 23))
  redis.call('SETRANGE', INODE .. id, 0, instants .. struct.pack('>i8', generation + 1))
end

function effects.add()
  local id, path, record = take(), take(), take()
  local inode = parse(record)
  redis.call('ZADD', PATHS, 0, path .. '\0' .. id)
  redis.call('ZADD', CHILDREN .. inode.parent, 0, inode.name .. '\0' .. id)
  redis.call('SET', INODE .. id, record)
  local kind = inode.directory and 'directories' or 'files'
  counts[kind] = counts[kind] + 1
  add_blob(id, inode.blob)
end

-- The new record comes with no blob and no version: these stay, and grow by one.
function effects.change()
  local id, path, record = take(), take(), take()
  local old, new = parse(redis.call('GET', INODE .. id)), parse(record)
  local before = path_of(id)
  if before ~= path then
    redis.call('ZREM', PATHS, before .. '\0' .. id)
    redis.call('ZREM', CHILDREN .. old.parent, old.name .. '\0' .. id)
    redis.call('ZADD', PATHS, 0, path .. '\0' .. id)
    redis.call('ZADD', CHILDREN .. new.parent, 0, new.name .. '\0' .. id)
  end
  local version = struct.pack('>I4', (old.version + 1) % 4294967296)
  redis.call('SET', INODE .. id, string.sub(record, 1, 24) .. version .. string.sub(record, 29) .. old.blob)
end

function effects.replace()
  local id, blob, local_at, elsewhere_at = take(), take(), take(), take()
  local record = redis.call('GET', INODE .. id)
  local inode = parse(record)
  redis.call('SET', INODE .. id, string.sub(record, 1, inode.blob_at - 1) .. blob)
  bury(id, inode.blob, local_at, elsewhere_at)
  add_blob(id, blob)
end

-- The same content in other copies; none becomes garbage by this.
function effects.copies()
  local id, blob = take(), take()
  local record = redis.call('GET', INODE .. id)
  local inode = parse(record)
  redis.call('SET', INODE .. id, string.sub(record, 1, inode.blob_at - 1) .. blob)
  local copies, size = copies_of(inode.blob)
  drop_replication_of(copies)
  for _, copy in ipairs(copies) do
    local member = copy.id .. '\0' .. id
    redis.call('ZREM', BLOBS, member)
    redis.call('ZREM', LOCAL_BLOBS, copy.place .. '\0' .. member)
  end
  counts.bytes = counts.bytes - size
  add_blob(id, blob)
end

function effects.queue()
  local blob_id, due_at = take(), take()
  put_replication(blob_id, replication_in(take()), due_at)
end

function effects.remove()
  local id, path, local_at, elsewhere_at = take(), take(), take(), take()
  local inode = parse(redis.call('GET', INODE .. id))
  redis.call('ZREM', PATHS, path .. '\0' .. id)
  redis.call('ZREM', CHILDREN .. inode.parent, inode.name .. '\0' .. id)
  redis.call('DEL', INODE .. id)
  drop_inode(id, inode, local_at, elsewhere_at)
end

function effects.remove_tree()
  local directory, local_at, elsewhere_at = take(), take(), take()
  local first, last = bounds(directory)
  local top = id_at(directory)
  for members in chunks(PATHS, first, last) do
    redis.call('ZREM', PATHS, unpack(members))
    local ids, keys = ids_of(members), {}
    for i, record in ipairs(records(ids)) do
      drop_inode(ids[i], parse(record), local_at, elsewhere_at)
      keys[2 * i - 1], keys[2 * i] = INODE .. ids[i], CHILDREN .. ids[i]
    end
    redis.call('DEL', unpack(keys))
  end
  redis.call('DEL', CHILDREN .. top)
end

-- Names and parents stay, so the paths alone change.
function effects.move_tree()
  local source, destination = take(), take()
  local first, last = bounds(source)
  for members in chunks(PATHS, first, last) do
    local moved = {}
    for i, member in ipairs(members) do
      moved[2 * i - 1], moved[2 * i] = 0, destination .. string.sub(member, #source + 1)
    end
    redis.call('ZREM', PATHS, unpack(members))
    redis.call('ZADD', PATHS, unpack(moved))
  end
end

function effects.add_link()
  local hash, inode_id, record, expires_at = take(), take(), take(), take()
  redis.call('HSET', LINKS, hash, record)
  redis.call('SADD', LINKS_OF .. inode_id, hash)
  redis.call('ZADD', LINK_EXPIRY, expires_at, hash)
end

function effects.use_link()
  local hash, used_at, packed = take(), take(), take()
  local record = redis.call('HGET', LINKS, hash)
  redis.call('HSET', LINKS, hash, string.sub(record, 1, 16) .. packed .. string.sub(record, 25))
  redis.call('ZADD', LINK_USE, used_at, hash)
end

function effects.instance()
  local id, record = take(), take()
  redis.call('HSET', INSTANCES, id, record)
end

function effects.forget_node()
  local id, place = take(), take()
  redis.call('HDEL', INSTANCES, id)
  while true do
    local numbers = redis.call('ZRANGE', GARBAGE_OF .. place, 0, CHUNK - 1)
    if #numbers == 0 then
      return
    end
    local blob_ids = {}
    for i, record in ipairs(redis.call('HMGET', GARBAGE, unpack(numbers))) do
      blob_ids[i] = buried_in(record)
    end
    redis.call('HDEL', GARBAGE_BLOBS, unpack(blob_ids))
    redis.call('HDEL', GARBAGE, unpack(numbers))
    redis.call('ZREM', GARBAGE_OF .. place, unpack(numbers))
  end
end

-- The rest tends queues and replies with what it did.

function effects.purge_links()
  local expired_before, used_before, limit = take(), take(), tonumber(take())
  local count = 0
  for _, range in ipairs({{LINK_EXPIRY, expired_before}, {LINK_USE, used_before}}) do
    while count < limit do
      local found = redis.call('ZRANGEBYSCORE', range[1], '-inf', '(' .. range[2],
        'LIMIT', 0, math.min(CHUNK, limit - count))
      if #found == 0 then
        break
      end
      for _, hash in ipairs(found) do
        drop_link(hash)
      end
      count = count + #found
    end
  end
  return tostring(count)
end

function effects.drop_garbage()
  local count = 0
  for _ = 1, tonumber(take()) do
    count = count + (drop_garbage(take()) and 1 or 0)
  end
  return tostring(count)
end

function effects.postpone()
  local blob_id, due_at, due, by = take(), take(), take(), take()
  local entry = drop_replication(blob_id)
  if not entry then
    return '0'
  end
  entry.attempts, entry.due = entry.attempts + 1, due
  entry.by = by ~= '' and by or entry.by
  put_replication(blob_id, entry, due_at)
  return '1'
end

function effects.condemn()
  local at, doomed = take(), {}
  for _ = 1, tonumber(take()) do
    local id = take()
    if not has_member(BLOBS, id) and redis.call('HEXISTS', GARBAGE_BLOBS, id) == 0 then
      if redis.call('ZADD', CONDEMNED, 0, id) == 1 then
        redis.call('ZADD', CONDEMNED_AT, at, id)
      end
      doomed[#doomed + 1] = id
    end
  end
  return frame(doomed)
end

function effects.forget_condemned()
  local before, count = take(), 0
  while true do
    local found = redis.call('ZRANGEBYSCORE', CONDEMNED_AT, '-inf', '(' .. before, 'LIMIT', 0, CHUNK)
    if #found == 0 then
      return tostring(count)
    end
    redis.call('ZREM', CONDEMNED_AT, unpack(found))
    redis.call('ZREM', CONDEMNED, unpack(found))
    count = count + #found
  end
end
