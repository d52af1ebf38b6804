-- What all scripts share: the keys, the form of records and replies, and the gate that every script passes.
--
-- KEYS[1] is the common beginning of all keys, with their one hash tag. Text compares bytewise in sorted sets whose
-- scores are all 0. No name has a byte below 0x20, so "\0" ends a name before whatever could follow it.

local base = KEYS[1]
local STORE = base .. 'store'            -- hash: identity, format, changes, import, next_garbage,
                                         -- files, directories, bytes
local PATHS = base .. 'paths'            -- sorted: path \0 inode id
local INODE = base .. 'i:'               -- + inode id: the record
local CHILDREN = base .. 'c:'            -- + inode id, sorted: name \0 inode id
local BLOBS = base .. 'blobs'            -- sorted: blob id \0 inode id
local LOCAL_BLOBS = base .. 'blobs:local' -- sorted: place \0 blob id \0 inode id, of blobs on a node's disk
local LINKS = base .. 'links'            -- hash: token hash -> record
local LINKS_OF = base .. 'lo:'           -- + inode id, set: token hashes
local LINK_EXPIRY = base .. 'links:expiry' -- sorted by expiry: token hash
local LINK_USE = base .. 'links:use'     -- sorted by use: token hash
local GARBAGE = base .. 'garbage'        -- hash: number -> record
local GARBAGE_BLOBS = base .. 'garbage:blobs' -- hash: blob id -> number
local GARBAGE_OF = base .. 'g:'          -- + place, sorted by instant: number, 16 digits
local REPLICATIONS = base .. 'replications' -- hash: blob id -> record
local REPLICATION_AGES = base .. 'replications:ages' -- sorted: node \0 queued at, 16 hex digits \0 blob id
local REPLICATION_FAILING = base .. 'replications:failing' -- sorted: node \0 blob id, of those that failed
local REPLICATION_TARGETS = base .. 'replications:to' -- sorted: place \0 blob id
local REPLICATIONS_OF = base .. 'q:'     -- + node, sorted by instant due: blob id
local CONDEMNED = base .. 'condemned'    -- sorted: blob id
local CONDEMNED_AT = base .. 'condemned:at' -- sorted by instant: blob id
local INSTANCES = base .. 'instances'    -- hash: instance id -> record
local RESULT = base .. 'r:'              -- + command id: what was replied, for an hour
local TURN = base .. 'turn'              -- the command that everybody waits for, when there is one

local CHUNK = 500
local TREE_LIMIT = 100000
local MOST_ANCESTORS = 1100

-- A list of strings as one: how many, the length of each, then all of them.
local function frame(parts)
  local lengths = {struct.pack('>I4', #parts)}
  for i = 1, #parts do
    lengths[i + 1] = struct.pack('>I4', #parts[i])
  end
  return table.concat(lengths) .. table.concat(parts)
end

-- Reads are linearizable, so a replica answers none: a DEL of nothing is refused there and does nothing elsewhere.
-- Not for a script that is to write: it counts as the script's first write, after which Redis refuses none for want
-- of memory.
local function replica()
  local probe = redis.pcall('DEL', base .. 'nothing')
  if type(probe) == 'table' and probe.err and string.find(probe.err, 'READONLY', 1, true) then
    return {err = 'READONLY this server is a replica'}
  end
  return nil
end

-- A server that lost its data, or has another store's, has another identity.
local function gate(store_id)
  if redis.call('HGET', STORE, 'identity') ~= store_id then
    return {err = 'FOREIGN this is another store, or none'}
  end
  return nil
end

local function now()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

-- A record: mtime, ctime, generation, version, kind (1: directory), parent, name, owner, the rest, and the blob.
-- The version grows when anything but the instants and the generation changes.
local function parse(record)
  local _, _, generation, version, kind, parent, name, owner, _, at =
    struct.unpack('>i8i8i8I4BHc0Hc0Hc0Hc0', record)
  return {
    generation = generation, version = version, directory = kind == 1,
    parent = parent, name = name, owner = owner, blob_at = at, blob = string.sub(record, at),
  }
end

-- The blob's part of a record: size, digest, and for each copy its place and id.
local function copies_of(blob)
  if blob == '' then
    return {}, 0, ''
  end
  local size, sha256, count, at = struct.unpack('>i8Hc0B', blob)
  local copies = {}
  for i = 1, count do
    local place, id, next_at = struct.unpack('>Hc0Hc0', blob, at)
    copies[i] = {place = place, id = id}
    at = next_at
  end
  return copies, size, sha256
end

-- An entry of the replication queue: attempts, due at, queued at in 16 hex digits, inode, node, and target place.
local REPLICATION = '>I4c8c16Hc0Hc0Hc0'

local function replication_in(record)
  local attempts, due, queued, inode_id, by, place = struct.unpack(REPLICATION, record)
  return {attempts = attempts, due = due, queued = queued, inode = inode_id, by = by, place = place}
end

local function age_of(blob_id, entry)
  return entry.by .. '\0' .. entry.queued .. '\0' .. blob_id
end

local function is_local(place)
  return string.sub(place, 1, 8) == 'localfs:'
end

local function id_at(path)
  local found = redis.call('ZRANGEBYLEX', PATHS, '[' .. path .. '\0', '(' .. path .. '\1', 'LIMIT', 0, 1)
  return found[1] and string.sub(found[1], #path + 2)
end

-- The members of a sorted set between two bounds, by bytes, in chunks: of all, or of so many. A chunk's members may be
-- taken out before the next one is asked for.
local function chunks(key, first, last, limit)
  local left = limit or math.huge
  return function()
    if left <= 0 then
      return nil
    end
    local members = redis.call('ZRANGEBYLEX', key, first, last, 'LIMIT', 0, math.min(CHUNK, left))
    if #members == 0 then
      return nil
    end
    first, left = '(' .. members[#members], left - #members
    return members
  end
end

-- A page of a sorted set, by bytes, behind a member or from the beginning on.
local function page_after(key, member, limit)
  return redis.call('ZRANGEBYLEX', key, member == '' and '-' or '(' .. member, '+', 'LIMIT', 0, limit)
end

local function has_member(key, text)
  return #redis.call('ZRANGEBYLEX', key, '[' .. text .. '\0', '(' .. text .. '\1', 'LIMIT', 0, 1) > 0
end

-- The path of an inode, from the names of it and its ancestors.
local function path_of(id)
  local names = {}
  for _ = 1, MOST_ANCESTORS do
    local record = redis.call('GET', INODE .. id)
    if not record then
      return nil
    end
    local inode = parse(record)
    if inode.parent == id then
      break
    end
    table.insert(names, 1, inode.name)
    id = inode.parent
  end
  return '/' .. table.concat(names, '/')
end

-- Where the path begins and ends in a member of PATHS.
local function split(member)
  local at = string.find(member, '\0', 1, true)
  return string.sub(member, 1, at - 1), string.sub(member, at + 1)
end

local function ids_of(members)
  local ids = {}
  for i, member in ipairs(members) do
    ids[i] = string.sub(member, string.find(member, '\0', 1, true) + 1)
  end
  return ids
end

local function bounds(directory)
  if directory == '/' then
    return '[/\1', '(0'
  end
  return '(' .. directory .. '/', '(' .. directory .. '0'
end

local function count_below(directory)
  local first, last = bounds(directory)
  return redis.call('ZLEXCOUNT', PATHS, first, last)
end

-- The records of some inodes; what is missing is false.
local function records(ids)
  local found = {}
  for start = 1, #ids, CHUNK do
    local keys = {}
    for i = start, math.min(start + CHUNK - 1, #ids) do
      keys[#keys + 1] = INODE .. ids[i]
    end
    for _, record in ipairs(redis.call('MGET', unpack(keys))) do
      found[#found + 1] = record
    end
  end
  return found
end
