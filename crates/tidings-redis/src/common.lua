-- What every script begins with: is this the log that the node knows? If not, it becomes another one, with another epoch.
local base, candidate, known_epoch, known_id, renounced = ARGV[1], ARGV[2], ARGV[3], ARGV[5], ARGV[6]
local age = tonumber(ARGV[7])
local meta = KEYS[1]
local function text(number) return string.format('%.0f', number) end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local found = redis.call('HMGET', meta, 'epoch', 'head', 'last', 'age', 'low')
local epoch, head, last = found[1], tonumber(found[2] or 0), tonumber(found[3] or 0)
-- The age that messages were kept for so far, and up to where a shorter one may have dropped them.
local kept, dropped = tonumber(found[4] or age), tonumber(found[5] or 0)
-- Times are as exact as this.
local step = math.ceil(age / 64)
-- If the clock went back, as that of a promoted replica may, keys expire before the times say so.
local is_other = not epoch or epoch == renounced or now < last - math.ceil(kept / 64)
if not is_other and epoch == known_epoch then
  is_other = head < tonumber(ARGV[4])
  if not is_other and known_id ~= '' then
    is_other = redis.call('GET', base .. epoch .. ':i:' .. known_id) ~= ARGV[4]
  end
end
if is_other then
  redis.call('DEL', meta)
  redis.call('HSET', meta, 'epoch', candidate, 'head', 0, 'last', 0)
  epoch, head, last, kept, dropped = candidate, 0, 0, age, 0
end
local times = base .. epoch .. ':t'
-- What is older than the age has an offset up to this.
local function aged_out()
  if last <= now - kept then return head end
  local old = redis.call('ZREVRANGEBYSCORE', times, now - kept, '-inf', 'LIMIT', 0, 1)
  return tonumber(old[1] or 0)
end
-- Whatever was dropped for its age has an offset up to this.
local function floor() return math.max(dropped, aged_out()) end
local function newest(user)
  local entry = redis.call('XREVRANGE', base .. epoch .. ':l:' .. user, '+', '-', 'COUNT', 1)[1]
  return entry and tonumber(string.match(entry[1], '^%d+'))
end
