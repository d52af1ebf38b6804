-- A page of everything. ARGV: store, what, where to go on, how many at most.
-- The reply: how many changes there ever were, where to go on or nothing at the end, then the parts of each record.

local refusal = replica() or gate(ARGV[1])
if refusal then
  return refusal
end
local from, limit = ARGV[3], tonumber(ARGV[4])
local parts = {}
local reply = {redis.call('HGET', STORE, 'changes') or '0', ''}

local function give(key, record)
  reply[#reply + 1] = key
  reply[#reply + 1] = record
end

local function members(key)
  local page = page_after(key, from, limit)
  reply[2] = #page == limit and page[#page] or ''
  return page
end

function parts.inodes()
  local page = members(PATHS)
  for i, record in ipairs(records(ids_of(page))) do
    give(page[i], record)
  end
end

function parts.links()
  local first = tonumber(from) or 0
  local page = redis.call('ZRANGE', LINK_EXPIRY, first, first + limit - 1)
  for _, hash in ipairs(page) do
    give(hash, redis.call('HGET', LINKS, hash))
  end
  reply[2] = #page == limit and string.format('%.0f', first + limit) or ''
end

-- By number, most of which may be gone.
function parts.garbage()
  local first = tonumber(from) or 1
  local last = tonumber(redis.call('HGET', STORE, 'next_garbage') or '0')
  local numbers = {}
  for number = first, math.min(last, first + limit - 1) do
    numbers[#numbers + 1] = string.format('%016.0f', number)
  end
  for _, number in ipairs(numbers) do
    local record = redis.call('HGET', GARBAGE, number)
    if record then
      give(number, record)
    end
  end
  reply[2] = first + limit <= last and string.format('%.0f', first + limit) or ''
end

function parts.condemned()
  for _, blob_id in ipairs(members(CONDEMNED)) do
    give(blob_id, string.format('%.0f', tonumber(redis.call('ZSCORE', CONDEMNED_AT, blob_id))))
  end
end

function parts.replications()
  for _, age in ipairs(members(REPLICATION_AGES)) do
    local _, rest = split(age)
    local blob_id = string.sub(rest, 18)
    give(blob_id, redis.call('HGET', REPLICATIONS, blob_id))
  end
end

function parts.instances()
  local found = redis.call('HGETALL', INSTANCES)
  for i = 1, #found, 2 do
    give(found[i], found[i + 1])
  end
end

parts[ARGV[2]]()
return frame(reply)
