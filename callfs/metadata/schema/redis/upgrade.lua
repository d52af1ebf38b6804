-- Part of the way from format 1 to format 2, which lists the blobs on each node's disk. ARGV: store, where to go on,
-- how many, and the format that is reached at the end. The reply: where to go on, or nothing at the end.
-- Done by several nodes at once it comes to the same.

-- Format 1 had the identity elsewhere: a node of that version, which would go on without keeping the list, finds none
-- from the first step on, and is refused whatever it asks.
if redis.call('HGET', STORE, 'id') == ARGV[1] then
  redis.call('HSET', STORE, 'identity', ARGV[1])
  redis.call('HDEL', STORE, 'id')
end
local refusal = replica() or gate(ARGV[1])
if refusal then
  return refusal
end
local from, limit = ARGV[2], tonumber(ARGV[3])
local page = page_after(BLOBS, from, limit)
for i, record in ipairs(records(ids_of(page))) do
  local blob_id = split(page[i])
  for _, copy in ipairs(record and copies_of(parse(record).blob) or {}) do
    if copy.id == blob_id and is_local(copy.place) then
      redis.call('ZADD', LOCAL_BLOBS, 0, copy.place .. '\0' .. page[i])
    end
  end
end
if #page < limit then
  redis.call('HSET', STORE, 'format', ARGV[4])
  return frame({''})
end
return frame({page[#page]})
