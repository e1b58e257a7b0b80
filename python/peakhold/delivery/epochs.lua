-- Parts of one shared window: takes them in, tells their fates, hands out an epoch.
--
-- KEYS[1] names the window, and all keys begin with it:
--   :open         sorted set of the epochs that have parts; of those that were handed out
--                 the score is 0
--   :parts:EPOCH  hash of an epoch's parts by their ids
--   :lease:EPOCH  who is reporting an epoch
--   :closed       the last epoch that was handed out
--   :ids          sorted set of the ids that were taken in, by when they are forgotten
--   :sharers      sorted set of the processes, by until when they count as sharing
--
-- ARGV[1] is the request, as JSON:
--   deadline      time after which it is void: it may have waited in a network
--   frequency, grace, kept, lease   seconds
--   sharer        the process that asks
--   leaving       whether it shares no more
--   sharing       seconds for which it counts as sharing from now on
--   reported      epochs whose parts are in a report, with the ids: [[epoch, [id, ...]]]
--   damaged       ids of parts that nobody could read, by epoch likewise
--   settled       ids that their process does not ask about any more
--   parts         what is offered: [[id, epoch, has a value], ...]
-- and the other arguments are the values, in their order. Times are seconds since 1970,
-- by the clock of this server.
--
-- Returns the fate of each part, the epoch that is to be reported or an empty string,
-- its ids and values, and in how many seconds to ask again or an empty string.

local key = KEYS[1]
local request = cjson.decode(ARGV[1])
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
if now > request.deadline then
  return redis.error_reply('STALE the request came too late')
end

local frequency, grace, kept = request.frequency, request.grace, request.kept
local OPEN, CLOSED, IDS = key .. ':open', key .. ':closed', key .. ':ids'
local SHARERS = key .. ':sharers'

local function integer(number)
  return string.format('%.0f', number)
end

local function parts_of(epoch)
  return key .. ':parts:' .. integer(epoch)
end

local function lease_of(epoch)
  return key .. ':lease:' .. integer(epoch)
end

local function remove(epoch, ids)
  for _, id in ipairs(ids) do
    redis.call('HDEL', parts_of(epoch), id)
  end
  if redis.call('EXISTS', parts_of(epoch)) == 0 then
    redis.call('ZREM', OPEN, integer(epoch))
    redis.call('DEL', lease_of(epoch))
  end
end

for _, done in ipairs(request.reported) do
  remove(done[1], done[2])
end
for _, done in ipairs(request.damaged) do
  for _, id in ipairs(done[2]) do
    if redis.call('HEXISTS', parts_of(done[1]), id) == 1 then
      redis.call('ZREM', IDS, id)
    end
  end
  remove(done[1], done[2])
end
-- What was asked before this request may still be on its way for as long as it is valid.
for _, id in ipairs(request.settled) do
  redis.call('ZADD', IDS, 'XX', integer(now + 600), id)
end
redis.call('ZREMRANGEBYSCORE', IDS, '-inf', integer(now))
redis.call('ZREMRANGEBYSCORE', SHARERS, '-inf', integer(now))
if request.leaving or request.sharing <= 0 then
  redis.call('ZREM', SHARERS, request.sharer)
else
  redis.call('ZADD', SHARERS, integer(now + request.sharing), request.sharer)
end

-- An epoch whose time is over counts as closed without its mark, so that no expiry opens
-- it again. After the clock was set back epochs come again.
local running = math.floor(now / frequency) + 1
local mark = tonumber(redis.call('GET', CLOSED) or '-1')
local closed = math.max(math.floor((now - grace) / frequency), math.min(mark, running))

local function epochs()
  local found = {}
  for _, epoch in ipairs(redis.call('ZRANGE', OPEN, 0, -1)) do
    found[#found + 1] = tonumber(epoch)
  end
  return found
end

local function is_open(id)
  for _, epoch in ipairs(epochs()) do
    if redis.call('HEXISTS', parts_of(epoch), id) == 1 then
      return true
    end
  end
  return false
end

-- It has a report maybe, and must have no further parts, whatever the clock says now.
local function was_handed_out(epoch)
  return redis.call('ZSCORE', OPEN, integer(epoch)) == '0'
end

local fates = {}
local value = 1
for at, part in ipairs(request.parts) do
  local id, epoch, has_value = part[1], part[2], part[3]
  if has_value then
    value = value + 1
  end
  if redis.call('ZSCORE', IDS, id) then
    fates[at] = is_open(id) and 'there' or 'sealed'
  elseif not has_value then
    fates[at] = 'absent'
  else
    fates[at] = epoch <= closed and 'late' or 'there'
    epoch = math.max(closed + 1, math.min(epoch, running))
    if fates[at] == 'late' then
      epoch = math.max(closed + 1, running)
    end
    while was_handed_out(epoch) do
      epoch = epoch + 1
    end
    redis.call('HSET', parts_of(epoch), id, ARGV[value])
    redis.call('EXPIRE', parts_of(epoch), kept)
    redis.call('ZADD', OPEN, integer(epoch), integer(epoch))
    redis.call('ZADD', IDS, integer(now + kept), id)
  end
end

local abandoned = request.leaving and redis.call('ZCARD', SHARERS) == 0
local taken, parts, wait = '', {}, nil
for _, epoch in ipairs(epochs()) do
  local due = epoch <= closed or abandoned or was_handed_out(epoch)
  local seconds = due and 0.5 or epoch * frequency + grace - now
  if due and taken == '' then
    local lease = redis.call('GET', lease_of(epoch))
    if not lease or lease == request.sharer then
      redis.call('SET', lease_of(epoch), request.sharer, 'EX', request.lease)
      redis.call('SET', CLOSED, integer(math.max(mark, epoch)))
      redis.call('ZADD', OPEN, 0, integer(epoch))
      taken, parts = integer(epoch), redis.call('HGETALL', parts_of(epoch))
      seconds = 0
    end
  end
  wait = math.min(wait or seconds, seconds)
end
for _, each in ipairs({OPEN, CLOSED, IDS, SHARERS}) do
  redis.call('EXPIRE', each, kept)
end
return {fates, taken, parts, wait and string.format('%.3f', wait) or ''}
