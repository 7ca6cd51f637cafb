"""The Lua scripts of `redis_messaging.py`: each is one call of a blackboard or a bus, carried out whole.

Below a prefix lie: `changes` and `messages` (streams), `board` (key -> place of its latest entry), `keys` (sorted by name),
`history:KEY` (places), `once` and `published` (names of writes and publications), `groups`, and for each group `group:G`
(pattern, place, new messages not yet given out), `leases:G` (offset by the end of its lease), `counts:G` and `dead:G`.
"""

from __future__ import annotations

import re


def lua_pattern(pattern: str) -> str:
    """The Lua pattern that matches the topics of a bus's pattern."""
    words = {"*": "[^.]+", ">": ".+"}
    parts = [words.get(part) or re.sub(r"([^\w])", r"%\1", part) for part in pattern.split(".")]
    return f"^{'%.'.join(parts)}$"


_PLACES = """
local function whole(number) return string.format('%.0f', number) end
local function first_of(counter, stream, number)
  if redis.call('EXISTS', P .. stream) == 1 then
    local facts = redis.call('XINFO', 'STREAM', P .. stream)
    for i = 1, #facts, 2 do
      if facts[i] == 'last-generated-id' then
        local top = tonumber(string.match(facts[i + 1], '^%d+'))
        if top > tonumber(redis.call('GET', P .. counter) or '0') then redis.call('SET', P .. counter, whole(top)) end
      end
    end
  end
  return redis.call('INCRBY', P .. counter, number) - number + 1
end
"""
"""The first of `number` new places, behind all that is in the stream, whoever put it there. Places are written whole: Lua
would round those above 10^14."""
_BOARD = """
local P = KEYS[1]
local function entry(place)
  local found = redis.call('XRANGE', P .. 'changes', place .. '-0', place .. '-0')
  if #found == 0 then return false end
  local row = found[1][2]
  table.insert(row, 1, found[1][1])
  return row
end
local function latest(key)
  local place = redis.call('HGET', P .. 'board', key)
  if place then return entry(place) end
  return false
end
"""
_WRITE = (
    _BOARD
    + _PLACES
    + """
local key, value, writer, at, expected, once, kept, readers = unpack(ARGV)
if once ~= '' then
  local done = redis.call('HGET', P .. 'once', once)
  if done then return {'done', entry(done)} end
end
local there, version = latest(key), 0
if there then
  for i = 2, #there, 2 do
    if there[i] == 'version' then version = tonumber(there[i + 1]) end
  end
end
if expected ~= '' and tonumber(expected) ~= version then return {'conflict', there} end
local place = whole(first_of('writes', 'changes', 1))
local fields = {'key', key, 'value', value, 'version', version + 1, 'writer', writer, 'at', at}
if readers then fields[11], fields[12] = 'readers', readers end
redis.call('XADD', P .. 'changes', place .. '-0', unpack(fields))
redis.call('HSET', P .. 'board', key, place)
redis.call('ZADD', P .. 'keys', 0, key)
redis.call('RPUSH', P .. 'history:' .. key, place)
if once ~= '' then
  redis.call('HSET', P .. 'once', once, place)
  redis.call('SADD', P .. 'named', place)
end
if version >= tonumber(kept) then
  for _, old in ipairs(redis.call('LRANGE', P .. 'history:' .. key, 0, -1 - tonumber(kept))) do
    if redis.call('SISMEMBER', P .. 'named', old) == 0 then
      redis.call('LREM', P .. 'history:' .. key, 1, old)
      redis.call('XDEL', P .. 'changes', old .. '-0')
    end
  end
end
return {'written', entry(place)}
"""
)
_ENTRIES = (
    _BOARD
    + """
local rows, prefix = {}, ARGV[1]
for _, key in ipairs(redis.call('ZRANGEBYLEX', P .. 'keys', '[' .. prefix, '+')) do
  if string.sub(key, 1, #prefix) ~= prefix then break end
  table.insert(rows, latest(key))
end
return rows
"""
)
_HISTORY = (
    _BOARD
    + """
local rows = {}
for _, place in ipairs(redis.call('LRANGE', P .. 'history:' .. ARGV[1], 0, -1)) do table.insert(rows, entry(place)) end
return rows
"""
)

_BUS = """
local P = KEYS[1]
local function behind(group)
  return redis.call('ZCARD', P .. 'leases:' .. group) + tonumber(redis.call('HGET', P .. 'group:' .. group, 'new'))
end
local function topic_of(fields)
  for i = 1, #fields, 2 do
    if fields[i] == 'topic' then return fields[i + 1] end
  end
  return ''
end
local function message(offset)
  return redis.call('XRANGE', P .. 'messages', offset .. '-0', offset .. '-0')[1]
end
local function bury(group, offset, count, reason)
  redis.call('ZREM', P .. 'leases:' .. group, offset)
  redis.call('HDEL', P .. 'counts:' .. group, offset)
  redis.call('ZADD', P .. 'dead:' .. group, offset, offset)
  redis.call('HSET', P .. 'reasons:' .. group, offset, count .. ' ' .. reason)
end
local function following(after, pattern, visit)
  while after ~= '18446744073709551615' do
    local rows = redis.call('XRANGE', P .. 'messages', '(' .. after .. '-18446744073709551615', '+', 'COUNT', 1000)
    for _, row in ipairs(rows) do
      local offset = string.match(row[1], '^%d+')
      if string.match(topic_of(row[2]), pattern) and visit(offset, row) == 'enough' then return after, false end
      after = offset
    end
    if #rows < 1000 then return after, true end
  end
  return after, true
end
"""
"""`following` visits the messages of a pattern behind an offset; returns the last offset passed, and true at the end."""
_GROUP = (
    _BUS
    + """
local group = ARGV[1]
if redis.call('SISMEMBER', P .. 'groups', group) == 0 then return 'no group' end
"""
)
_PUBLISH = (
    _BUS
    + _PLACES
    + """
local topic, sender, at, max_lag, once = unpack(ARGV, 1, 5)
if once ~= '' then
  local done = redis.call('HGET', P .. 'published', once)
  if done then
    local first, count = string.match(done, '(%d+) (%d+)')
    return {'done', first, count}
  end
end
local number, readers = #ARGV - 5, {}
for _, group in ipairs(redis.call('SMEMBERS', P .. 'groups')) do
  if string.match(topic, redis.call('HGET', P .. 'group:' .. group, 'lua')) then
    local lag = behind(group)
    if lag + number > tonumber(max_lag) then return {'full', group, tostring(lag)} end
    table.insert(readers, group)
  end
end
local first = first_of('offset', 'messages', number)
local last = first + number - 1
for i = 1, number do
  local place = whole(first + i - 1) .. '-0'
  redis.call('XADD', P .. 'messages', place, 'topic', topic, 'payload', ARGV[5 + i], 'sender', sender, 'at', at)
end
for _, group in ipairs(readers) do
  local above = last - tonumber(redis.call('HGET', P .. 'group:' .. group, 'after'))
  redis.call('HINCRBY', P .. 'group:' .. group, 'new', whole(math.max(0, math.min(number, above))))
end
if once ~= '' then redis.call('HSET', P .. 'published', once, whole(first) .. ' ' .. number) end
return {'published', whole(first), tostring(number)}
"""
)
_SUBSCRIBE = (
    _BUS
    + """
local group, pattern, lua, after = unpack(ARGV)
local known = redis.call('HGET', P .. 'group:' .. group, 'pattern')
if known and known ~= pattern then return known end
if known and after == '' then return '' end
local from, new = after, 0
if from == '' then from = redis.call('GET', P .. 'offset') or '0' end
following(from, lua, function() new = new + 1 end)
redis.call('SADD', P .. 'groups', group)
redis.call('HSET', P .. 'group:' .. group, 'pattern', pattern, 'lua', lua, 'after', from, 'new', new)
redis.call('DEL', P .. 'leases:' .. group, P .. 'counts:' .. group)
for _, offset in ipairs(redis.call('ZRANGEBYSCORE', P .. 'dead:' .. group, '(' .. from, '+inf')) do
  redis.call('ZREM', P .. 'dead:' .. group, offset)
  redis.call('HDEL', P .. 'reasons:' .. group, offset)
end
return ''
"""
)
_UNSUBSCRIBE = """
local P, group = KEYS[1], ARGV[1]
redis.call('SREM', P .. 'groups', group)
for _, kind in ipairs({'group', 'leases', 'counts', 'dead', 'reasons'}) do redis.call('DEL', P .. kind .. ':' .. group) end
"""
_FETCH = (
    _GROUP
    + """
local limit, lease, most = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local lost = redis.call('ZRANGEBYSCORE', P .. 'leases:' .. group, '-inf', now)
table.sort(lost, function(a, b) return tonumber(a) < tonumber(b) end)
local given = {}
for place, offset in ipairs(lost) do
  if place > limit then break end
  local count = tonumber(redis.call('HGET', P .. 'counts:' .. group, offset))
  if count >= most then
    bury(group, offset, count, 'it was not acknowledged in time')
  else
    table.insert(given, {offset, count + 1})
  end
end
local known = redis.call('HMGET', P .. 'group:' .. group, 'after', 'lua')
local new = 0
if #given < limit then
  local reached, is_end = following(known[1], known[2], function(offset)
    if #given >= limit then return 'enough' end
    table.insert(given, {offset, 1})
    new = new + 1
  end)
  local left = 0  -- at the end nothing is new, also where the stream was trimmed by others
  if not is_end then left = math.max(0, tonumber(redis.call('HGET', P .. 'group:' .. group, 'new')) - new) end
  redis.call('HSET', P .. 'group:' .. group, 'after', reached, 'new', string.format('%.0f', left))
end
table.sort(given, function(a, b) return tonumber(a[1]) < tonumber(b[1]) end)
local rows = {}
for _, each in ipairs(given) do
  local found = message(each[1])
  if found then
    redis.call('ZADD', P .. 'leases:' .. group, string.format('%.6f', now + lease), each[1])
    redis.call('HSET', P .. 'counts:' .. group, each[1], each[2])
    table.insert(rows, {found[1], tostring(each[2]), found[2]})
  else
    redis.call('ZREM', P .. 'leases:' .. group, each[1])
    redis.call('HDEL', P .. 'counts:' .. group, each[1])
  end
end
return rows
"""
)
_ACKNOWLEDGE = (
    _GROUP
    + """
local done = 0
for i = 2, #ARGV do
  done = done + redis.call('ZREM', P .. 'leases:' .. group, ARGV[i])
  redis.call('HDEL', P .. 'counts:' .. group, ARGV[i])
end
return done
"""
)
_LET_GO = (
    _GROUP
    + """
local offset, reason, most = ARGV[2], ARGV[3], tonumber(ARGV[4])
local count = redis.call('HGET', P .. 'counts:' .. group, offset)
if not count then return 0 end
if tonumber(count) >= most then
  bury(group, offset, count, reason)
else
  redis.call('ZADD', P .. 'leases:' .. group, 0, offset)
end
return 1
"""
)
_DEAD_LETTERS = (
    _BUS
    + """
local group, rows = ARGV[1], {}
for _, offset in ipairs(redis.call('ZRANGE', P .. 'dead:' .. group, 0, -1)) do
  local count, reason = string.match(redis.call('HGET', P .. 'reasons:' .. group, offset), '^(%d+) (.*)$')
  local found = message(offset)
  if found then table.insert(rows, {found[1], count, reason, found[2]}) end
end
return rows
"""
)
SCRIPTS = {
    "write": _WRITE,
    "read": _BOARD + "return latest(ARGV[1])",
    "entries": _ENTRIES,
    "history": _HISTORY,
    "publish": _PUBLISH,
    "subscribe": _SUBSCRIBE,
    "unsubscribe": _UNSUBSCRIBE,
    "fetch": _FETCH,
    "acknowledge": _ACKNOWLEDGE,
    "let_go": _LET_GO,
    "dead_letters": _DEAD_LETTERS,
    "lag": _GROUP + "return behind(group)",
}
