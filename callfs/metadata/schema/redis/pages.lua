-- Questions about many things. ARGV: store, the question's name, its arguments.

local refusal = replica() or gate(ARGV[1])
if refusal then
  return refusal
end
local reads = {}

-- Members of a sorted set from a bound on, by bytes, at most so many.
local function range(key, first, last, limit)
  local found = {}
  for members in chunks(key, first, last, limit) do
    for i = 1, #members do
      found[#found + 1] = members[i]
    end
  end
  return found
end

-- What is due in a queue, the oldest first, each with its record.
local function due(queue, kept, until_at, limit)
  local reply = {}
  for offset = 0, limit - 1, CHUNK do
    local ids = redis.call('ZRANGEBYSCORE', queue, '-inf', until_at,
      'LIMIT', offset, math.min(CHUNK, limit - offset))
    if #ids == 0 then
      break
    end
    for i, record in ipairs(redis.call('HMGET', kept, unpack(ids))) do
      reply[#reply + 1] = ids[i]
      reply[#reply + 1] = record
    end
  end
  return frame(reply)
end

local function with_records(members, reply)
  local found = records(ids_of(members))
  for i, member in ipairs(members) do
    reply[#reply + 1] = member
    reply[#reply + 1] = found[i]
  end
  return reply
end

function reads.children(directory_id, after, limit)
  local path = path_of(directory_id)
  if not path then
    return frame({''})
  end
  local members = range(CHILDREN .. directory_id, '[' .. after .. '\1', '+', tonumber(limit))
  return frame(with_records(members, {path}))
end

function reads.subtree(first, last, limit)
  return frame(with_records(range(PATHS, '[' .. first, '(' .. last, tonumber(limit)), {}))
end

-- At the first path that is too deep, leap over the whole subtree that it is in: so what is too deep costs one leap
-- for each directory at the limit, not its number of files.
function reads.to_depth(first, last, limit, deepest)
  limit, deepest = tonumber(limit), tonumber(deepest)
  local found, step = {}, 64
  local from = '[' .. first
  while #found < limit do
    local asked = math.min(step, limit - #found)
    local page = redis.call('ZRANGEBYLEX', PATHS, from, '(' .. last, 'LIMIT', 0, asked)
    local leapt = false
    for _, member in ipairs(page) do
      local path = split(member)
      local at = 0
      for _ = 1, deepest + 1 do
        at = at and string.find(path, '/', at + 1, true)
      end
      if at then
        from, step, leapt = '[' .. string.sub(path, 1, at - 1) .. '0', 8, true
        break
      end
      found[#found + 1] = member
    end
    if not leapt then
      if #page < asked then
        break
      end
      from, step = '(' .. page[#page], math.min(step * 2, CHUNK)
    end
  end
  return frame(with_records(found, {}))
end

function reads.chain(path)
  cursor = 3
  return (questions.chain())
end

function reads.garbage(place, until_at, limit)
  return due(GARBAGE_OF .. place, GARBAGE, until_at, tonumber(limit))
end

function reads.named()
  local reply = {}
  for i = 3, #ARGV do
    if has_member(BLOBS, ARGV[i]) or redis.call('HEXISTS', GARBAGE_BLOBS, ARGV[i]) == 1 then
      reply[#reply + 1] = ARGV[i]
    end
  end
  return frame(reply)
end

function reads.condemned(before_at, after, limit)
  limit = tonumber(limit)
  local reply = {}
  for ids in chunks(CONDEMNED, '(' .. after, '+') do
    for _, id in ipairs(ids) do
      if #reply >= limit then
        return frame(reply)
      end
      if tonumber(redis.call('ZSCORE', CONDEMNED_AT, id)) < tonumber(before_at) then
        reply[#reply + 1] = id
      end
    end
  end
  return frame(reply)
end

local function blobs_at(place, after, limit)
  local members = range(LOCAL_BLOBS, '(' .. place .. '\0' .. after .. '\1', '(' .. place .. '\1', limit)
  for i, member in ipairs(members) do
    members[i] = string.sub(member, #place + 2)
  end
  return members
end

function reads.blobs(after, limit, place)
  limit = tonumber(limit)
  local members = place == '' and range(BLOBS, '(' .. after .. '\1', '+', limit) or blobs_at(place, after, limit)
  local reply, known = {}, {}
  local with = with_records(members, {})
  for i = 1, #with, 2 do
    local blob_id = split(with[i])
    local inode = parse(with[i + 1])
    known[inode.parent] = known[inode.parent] or path_of(inode.parent)
    local above = known[inode.parent]
    reply[#reply + 1] = blob_id
    reply[#reply + 1] = (above == '/' and '' or above) .. '/' .. inode.name
    reply[#reply + 1] = inode.blob
  end
  return frame(reply)
end

function reads.replications(by, until_at, limit)
  return due(REPLICATIONS_OF .. by, REPLICATIONS, until_at, tonumber(limit))
end

-- For each node: how many wait, how many of them failed, and since when the oldest waits.
function reads.backlog()
  local reply, first = {}, '-'
  while true do
    local oldest = redis.call('ZRANGEBYLEX', REPLICATION_AGES, first, '+', 'LIMIT', 0, 1)[1]
    if not oldest then
      return frame(reply)
    end
    local by, rest = split(oldest)
    reply[#reply + 1] = by
    reply[#reply + 1] = tostring(redis.call('ZCARD', REPLICATIONS_OF .. by))
    reply[#reply + 1] = tostring(
      redis.call('ZLEXCOUNT', REPLICATION_FAILING, '[' .. by .. '\0', '(' .. by .. '\1'))
    reply[#reply + 1] = string.sub(rest, 1, 16)
    first = '[' .. by .. '\1'
  end
end

return reads[ARGV[2]](ARGV[3], ARGV[4], ARGV[5], ARGV[6])
