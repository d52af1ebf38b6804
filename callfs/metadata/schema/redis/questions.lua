-- What a decision may ask. Each question gives its answer and a fingerprint of what a decision may have made of it.

local cursor

local function take()
  cursor = cursor + 1
  return ARGV[cursor - 1]
end

local questions = {}

-- What exists of a path and its ancestors. A decision depends on the target's whole state, and on the identity and
-- rights of what is above, but not on its instants: whoever else writes into the same directory is no obstacle.
function questions.chain()
  local path = take()
  local ids, at = {}, 1
  local complete = false
  while true do
    local slash = string.find(path, '/', at, true)
    local prefix = at == 1 and '/' or (slash and string.sub(path, 1, slash - 1) or path)
    local id = id_at(prefix)
    if not id then
      break
    end
    ids[#ids + 1] = id
    if prefix == path then
      complete = true
      break
    end
    at = at == 1 and 2 or slash + 1
  end
  local marks, parts = {complete and 'there' or 'missing'}, {}
  for i, record in ipairs(records(ids)) do
    if not record then
      return error('the inode ' .. ids[i] .. ' has no record')
    end
    parts[#parts + 1] = ids[i]
    parts[#parts + 1] = record
    marks[#marks + 1] = ids[i] .. string.sub(record, (complete and i == #ids) and 17 or 25, 28)
  end
  return frame(parts), table.concat(marks)
end

-- An inode wherever it is, and its path.
function questions.inode()
  local id = take()
  local record = redis.call('GET', INODE .. id)
  local path = record and path_of(id)
  if not path then
    return frame({}), 'missing'
  end
  return frame({path, record}), path .. '\0' .. string.sub(record, 17, 28)
end

-- Whether copies are on a node, whether replications have to do with it, and how much garbage is on its disk.
function questions.holdings()
  local id, place = take(), take()
  local first, last = '[' .. place .. '\0', '(' .. place .. '\1'
  local copies = #redis.call('ZRANGEBYLEX', LOCAL_BLOBS, first, last, 'LIMIT', 0, 1)
  local waiting = redis.call('EXISTS', REPLICATIONS_OF .. id)
    + #redis.call('ZRANGEBYLEX', REPLICATION_TARGETS, first, last, 'LIMIT', 0, 1)
  local answer = copies .. ' ' .. waiting .. ' ' .. redis.call('ZCARD', GARBAGE_OF .. place)
  return answer, answer
end

function questions.children()
  local answer = redis.call('EXISTS', CHILDREN .. take()) == 1 and '1' or '0'
  return answer, answer
end

-- How much is below a directory and how much of it isn't the user's.
function questions.tree()
  local directory, user = take(), take()
  local count, foreign = count_below(directory), 0
  if count > TREE_LIMIT then
    return 'large', 'large'
  end
  local first, last = bounds(directory)
  for members in chunks(PATHS, first, last) do
    for _, record in ipairs(records(ids_of(members))) do
      if parse(record).owner ~= user then
        foreign = foreign + 1
      end
    end
  end
  local answer = count .. ' ' .. foreign
  return answer, answer
end

function questions.longest()
  local directory, longest = take(), 0
  if count_below(directory) > TREE_LIMIT then
    return 'large', 'large'
  end
  local first, last = bounds(directory)
  for members in chunks(PATHS, first, last) do
    for _, member in ipairs(members) do
      longest = math.max(longest, string.find(member, '\0', 1, true) - 1)
    end
  end
  return tostring(longest), tostring(longest)
end

-- Whether a tree may be moved in one step.
function questions.size()
  local answer = count_below(take()) > TREE_LIMIT and 'large' or 'small'
  return answer, answer
end

function questions.condemned()
  local answer = '0'
  for _ = 1, tonumber(take()) do
    if redis.call('ZSCORE', CONDEMNED, take()) then
      answer = '1'
    end
  end
  return answer, answer
end

function questions.link()
  local record = redis.call('HGET', LINKS, take()) or ''
  return record, record
end

function questions.instance()
  local record = redis.call('HGET', INSTANCES, take()) or ''
  return record, record
end

-- The import that was begun and not finished, or nothing.
questions['import'] = function()
  local id = redis.call('HGET', STORE, 'import') or ''
  return id, id
end

-- Whether nothing but the root is there.
function questions.empty()
  local others = redis.call('EXISTS', LINKS, GARBAGE, CONDEMNED, INSTANCES, REPLICATIONS)
  local answer = others == 0 and redis.call('ZCARD', PATHS) == 1 and '1' or '0'
  return answer, answer
end
