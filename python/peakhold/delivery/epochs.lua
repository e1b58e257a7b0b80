-- Parts of one shared window: takes them in, tells their fates, hands out an epoch.
--
-- KEYS[1] names the window, and all keys begin with it:
--   :open         sorted set of the epochs that have parts; of those that were handed out
--                 the score is 0
--   :parts:EPOCH  hash of an epoch's parts by their ids
--   :lease:EPOCH  who is reporting an epoch
--   :closed       the last epoch that was handed out
--   :reported     sorted set of the ids that a report has, by when they are forgotten
--   :sharers      sorted set of the processes, by until when they count as sharing
--   :born         when the server got to know the window; changes when it has lost it
--
-- ARGV[1] is the request, as JSON:
--   deadline      time after which it is void: it may have waited in a network
--   frequency, grace, kept, lease   seconds
--   sharer        the process that asks
--   leaving       whether it shares no more
--   takes         whether it can send now; an epoch that nobody took for 60 s is handed
--                 out to who cannot, too
--   sharing       seconds for which it counts as sharing from now on
--   reported      epochs whose parts are in a report, with the ids: [[epoch, [id, ...]]]
--   damaged       ids of parts that it could not read, by epoch likewise
--   settled       ids that nobody asks about any more
--   remembered    seconds for which those are known all the same: a request that was
--                 made before may still arrive
--   parts         what is offered: [[id, epoch, has a value], ...]
-- and the other arguments are the values, in their order. Times are seconds since 1970,
-- by the clock of this server.
--
-- Returns
--   the fate of each part: `new` if it is here from now on, `late` if its epoch was closed
--     before and it went into the running one, `there` if it was here, `reported` if a
--     report has it, and `absent` if its value is to be sent
--   the epoch in which each is here, or empty strings
--   the epoch that is to be reported, or an empty string, and its ids and values
--   in how many seconds to ask again, or an empty string
--   how many of the ids that were reported are not known here
--   :born

local WAITS = 60 -- seconds after which who cannot send is handed an epoch, too

local key = KEYS[1]
local request = cjson.decode(ARGV[1])
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
if now > request.deadline then
  return redis.error_reply('STALE the request came too late')
end

local frequency, grace = request.frequency, request.grace
local OPEN, CLOSED, REPORTED = key .. ':open', key .. ':closed', key .. ':reported'
local SHARERS, BORN = key .. ':sharers', key .. ':born'

local function integer(number)
  return string.format('%.0f', number)
end

local function parts_of(epoch)
  return key .. ':parts:' .. integer(epoch)
end

local function lease_of(epoch)
  return key .. ':lease:' .. integer(epoch)
end

-- Never shortens an expiry: another process may have a longer time to live.
local function keep(name)
  if redis.call('TTL', name) < request.kept then
    redis.call('EXPIRE', name, request.kept)
  end
end

local function close_if_empty(epoch)
  if redis.call('EXISTS', parts_of(epoch)) == 0 then
    redis.call('ZREM', OPEN, integer(epoch))
    redis.call('DEL', lease_of(epoch))
    return true
  end
  return false
end

local function remove(epoch, id)
  local removed = redis.call('HDEL', parts_of(epoch), id)
  close_if_empty(epoch)
  return removed == 1
end

-- Drops what is no epoch with parts, as after somebody has deleted them.
local function drop_foreign()
  for _, member in ipairs(redis.call('ZRANGE', OPEN, 0, -1)) do
    local epoch = string.match(member, '^%d+$') and tonumber(member)
    if not epoch or integer(epoch) ~= member then
      redis.call('ZREM', OPEN, member)
    else
      close_if_empty(epoch)
    end
  end
end

local function epochs()
  local found = {}
  for _, member in ipairs(redis.call('ZRANGE', OPEN, 0, -1)) do
    found[#found + 1] = tonumber(member)
  end
  return found
end

-- It has a report maybe, and must have no further parts, whatever the clock says now.
local function was_handed_out(epoch)
  return redis.call('ZSCORE', OPEN, integer(epoch)) == '0'
end

-- Of a part that was offered again meanwhile, for the server had lost it.
local function remove_copy(id)
  for _, epoch in ipairs(epochs()) do
    if not was_handed_out(epoch) and remove(epoch, id) then
      return true
    end
  end
  return false
end

drop_foreign()
local missing = 0
for _, done in ipairs(request.reported) do
  for _, id in ipairs(done[2]) do
    if not remove(done[1], id) and not redis.call('ZSCORE', REPORTED, id) then
      missing = missing + (remove_copy(id) and 0 or 1)
    end
    redis.call('ZADD', REPORTED, integer(now + request.kept), id)
  end
end
for _, done in ipairs(request.damaged) do
  for _, id in ipairs(done[2]) do
    remove(done[1], id)
  end
end
for _, id in ipairs(request.settled) do
  redis.call('ZADD', REPORTED, 'XX', integer(now + request.remembered), id)
end
redis.call('ZREMRANGEBYSCORE', REPORTED, '-inf', integer(now))
redis.call('ZREMRANGEBYSCORE', SHARERS, '-inf', integer(now))
if request.leaving or request.sharing <= 0 then
  redis.call('ZREM', SHARERS, request.sharer)
else
  redis.call('ZADD', SHARERS, integer(now + request.sharing), request.sharer)
end
local born = redis.call('GET', BORN)
if not born then
  born = string.format('%d.%06d', time[1], time[2])
  redis.call('SET', BORN, born)
end

-- An epoch whose time is over counts as closed without its mark, so that no expiry opens
-- it again. After the clock was set back epochs come again.
local running = math.floor(now / frequency) + 1
local mark = math.min(tonumber(redis.call('GET', CLOSED) or '-1') or -1, running)
local closed = math.max(math.floor((now - grace) / frequency), mark)

-- In which epoch which part is.
local place = {}
if #request.parts > 0 then
  for _, epoch in ipairs(epochs()) do
    for _, id in ipairs(redis.call('HKEYS', parts_of(epoch))) do
      place[id] = epoch
    end
  end
end

local fates, places = {}, {}
local value = 1
for at, part in ipairs(request.parts) do
  local id, epoch, has_value = part[1], part[2], part[3]
  if has_value then
    value = value + 1
  end
  if redis.call('ZSCORE', REPORTED, id) then
    fates[at] = 'reported'
  elseif place[id] then
    fates[at] = 'there'
  elseif not has_value then
    fates[at] = 'absent'
  else
    fates[at] = epoch <= closed and 'late' or 'new'
    if fates[at] == 'late' then
      epoch = running
    end
    epoch = math.max(closed + 1, math.min(epoch, running))
    while was_handed_out(epoch) do
      epoch = epoch + 1
    end
    redis.call('HSET', parts_of(epoch), id, ARGV[value])
    keep(parts_of(epoch))
    redis.call('ZADD', OPEN, integer(epoch), integer(epoch))
    place[id] = epoch
  end
  places[at] = place[id] and integer(place[id]) or ''
end

-- The parts of an epoch, without those that have no id of ours.
local function values_of(epoch)
  local found = {}
  local all = redis.call('HGETALL', parts_of(epoch))
  for at = 1, #all, 2 do
    if string.match(all[at], '^[%w.-]+$') then
      found[#found + 1] = all[at]
      found[#found + 1] = all[at + 1]
    else
      redis.call('HDEL', parts_of(epoch), all[at])
    end
  end
  return found
end

local abandoned = request.leaving and redis.call('ZCARD', SHARERS) == 0
local taken, parts, wait = '', {}, nil
for _, epoch in ipairs(epochs()) do
  local left = epoch * frequency + grace - now
  -- One of the future is of a time when the clock was wrong.
  local is_wrong = epoch > running + 1
  local due = epoch <= closed or abandoned or was_handed_out(epoch) or is_wrong
  local may = request.takes or abandoned or is_wrong or left < -WAITS
  local lease = redis.call('GET', lease_of(epoch))
  local seconds = due and (request.takes and 0.5 or 5) or left
  if due and may and taken == '' and (not lease or lease == request.sharer) then
    parts = values_of(epoch)
    if close_if_empty(epoch) then -- nothing in it was a part
      seconds = nil
    else
      if not lease then -- it is not renewed: who never reports is followed by another
        redis.call('SET', lease_of(epoch), request.sharer, 'EX', request.lease)
      end
      if epoch <= running then
        redis.call('SET', CLOSED, integer(math.max(mark, epoch)))
      end
      redis.call('ZADD', OPEN, 0, integer(epoch))
      taken = integer(epoch)
      seconds = 0
    end
  end
  if seconds then
    wait = math.min(wait or seconds, seconds)
  end
end
for _, each in ipairs({OPEN, CLOSED, REPORTED, SHARERS, BORN}) do
  keep(each)
end
wait = wait and string.format('%.3f', wait) or ''
return {fates, places, taken, parts, wait, missing, born}
