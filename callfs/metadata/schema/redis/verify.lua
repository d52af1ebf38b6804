-- A part of the whole check. ARGV: store, what, where to go on, how many.
-- The reply: where to go on, or nothing at the end; files, directories and bytes that were seen; then findings.

local refusal = replica() or gate(ARGV[1])
if refusal then
  return refusal
end
local parts = {}
local seen = {files = 0, directories = 0, bytes = 0}
local findings = {}

local function found(sentence, ...)
  findings[#findings + 1] = string.format(sentence, ...)
end

local function is_member(key, member)
  return redis.call('ZSCORE', key, member) ~= false
end

local function check_place(path, id, inode)
  if path == '/' then
    return
  end
  local above, name = string.match(path, '^(.*)/([^/]*)$')
  local parent = id_at(above == '' and '/' or above)
  local record = parent and redis.call('GET', INODE .. parent)
  if not record then
    found('the parent of %s is missing', path)
  elseif not parse(record).directory then
    found('the parent of %s is a file', path)
  elseif inode.parent ~= parent or inode.name ~= name then
    found("%s isn't below the path of its parent", path)
  elseif not is_member(CHILDREN .. parent, name .. '\0' .. id) then
    found("%s isn't listed in its directory", path)
  end
end

local function check_file(path, id, inode)
  local copies, size = copies_of(inode.blob)
  seen.files, seen.bytes = seen.files + 1, seen.bytes + size
  if #copies == 0 then
    found('the file %s has no blob', path)
  end
  for _, copy in ipairs(copies) do
    if not is_member(BLOBS, copy.id .. '\0' .. id) then
      found("the blob %s of %s isn't in the list of blobs", copy.id, path)
    end
    if is_local(copy.place) and not is_member(LOCAL_BLOBS, copy.place .. '\0' .. copy.id .. '\0' .. id) then
      found("the blob %s of %s isn't in the list of its node's blobs", copy.id, path)
    end
    if redis.call('HEXISTS', GARBAGE_BLOBS, copy.id) == 1 then
      found('the blob %s is named and queued as garbage', copy.id)
    end
    if redis.call('ZSCORE', CONDEMNED, copy.id) then
      found('the blob %s is named and condemned', copy.id)
    end
  end
end

local function check_directory(path, id, inode)
  seen.directories = seen.directories + 1
  if inode.blob ~= '' then
    found('the directory %s has a blob', path)
  end
  for children in chunks(CHILDREN .. id, '-', '+') do
    for _, child in ipairs(children) do
      if not is_member(PATHS, (path == '/' and '' or path) .. '/' .. child) then
        found("the directory %s lists %s, which isn't there", path, (split(child)))
      end
    end
  end
end

function parts.paths(member)
  local path, id = split(member)
  local record = redis.call('GET', INODE .. id)
  if not record then
    found('the inode of %s is missing', path)
    return
  end
  local inode = parse(record)
  check_place(path, id, inode)
  local check = inode.directory and check_directory or check_file
  check(path, id, inode)
end

function parts.blobs(member)
  local blob_id, inode_id = split(member)
  local record = redis.call('GET', INODE .. inode_id)
  for _, copy in ipairs(record and copies_of(parse(record).blob) or {}) do
    if copy.id == blob_id then
      return
    end
  end
  found('the blob %s belongs to no file', blob_id)
end

parts['local'] = function(member)
  local place, rest = split(member)
  local blob_id, inode_id = split(rest)
  local record = redis.call('GET', INODE .. inode_id)
  for _, copy in ipairs(record and copies_of(parse(record).blob) or {}) do
    if copy.id == blob_id and copy.place == place then
      return
    end
  end
  found('the blob %s is listed on %s, where no file has it', blob_id, place)
end

function parts.replications(age)
  local _, rest = split(age)
  local blob_id = string.sub(rest, 18)
  local record = redis.call('HGET', REPLICATIONS, blob_id)
  local entry = record and replication_in(record)
  local inode = entry and redis.call('GET', INODE .. entry.inode)
  local first = inode and copies_of(parse(inode).blob)[1]
  if not first or first.id ~= blob_id then
    found("a copy of %s is queued to be made, but it is no file's first copy", blob_id)
    return
  end
  local failing = is_member(REPLICATION_FAILING, entry.by .. '\0' .. blob_id)
  if age ~= age_of(blob_id, entry) or not is_member(REPLICATIONS_OF .. entry.by, blob_id)
    or not is_member(REPLICATION_TARGETS, entry.place .. '\0' .. blob_id) or failing ~= (entry.attempts > 0) then
    found('the lists of the replication queue are wrong about %s', blob_id)
  end
end

function parts.links(hash)
  local link = redis.call('HGET', LINKS, hash)
  local _, inode_id = struct.unpack('>c24Hc0', link or string.rep('\0', 26))
  local record = redis.call('GET', INODE .. inode_id)
  if not record or parse(record).directory then
    found('the link %s belongs to no file', (string.gsub(hash, '.', function(byte)
      return string.format('%02X', string.byte(byte))
    end)))
  end
end

local what, from, limit = ARGV[2], ARGV[3], tonumber(ARGV[4])
local page, go_on
if what == 'links' then
  page = redis.call('ZRANGE', LINK_EXPIRY, from, tonumber(from) + limit - 1)
  go_on = tostring(tonumber(from) + #page)
else
  local keys = {paths = PATHS, blobs = BLOBS, ['local'] = LOCAL_BLOBS, replications = REPLICATION_AGES}
  page = page_after(keys[what], from, limit)
  go_on = page[#page]
end
for _, member in ipairs(page) do
  parts[what](member)
end
if what == 'paths' and from == '' and not id_at('/') then
  found('the root is missing')
end
if what == 'links' and from == '0' and redis.call('HLEN', LINKS) ~= redis.call('ZCARD', LINK_EXPIRY) then
  found('the list of links by their expiry is incomplete')
end
if what == 'replications' and from == '' then
  local count = redis.call('HLEN', REPLICATIONS)
  if redis.call('ZCARD', REPLICATION_AGES) ~= count or redis.call('ZCARD', REPLICATION_TARGETS) ~= count then
    found('the lists of the replication queue are incomplete')
  end
end
local reply = {#page == limit and go_on or '', tostring(seen.files), tostring(seen.directories),
  string.format('%.0f', seen.bytes)}
for _, sentence in ipairs(findings) do
  reply[#reply + 1] = sentence
end
return frame(reply)
