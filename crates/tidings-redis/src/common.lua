-- What every script begins with: is this the log that the node knows? If not, it becomes another one, with another epoch.
local base, candidate, renounced, age = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
-- The server's process, empty if the node may not ask, how many keys it has dropped, and whether it never has an older copy.
local run, evicted, is_durable = ARGV[5], tonumber(ARGV[6]), ARGV[7] == 'durable'
-- The epoch that the node knows, the log's head then, and a message: its offset, its id, and the time until which the log has it.
local known_epoch, known_head = ARGV[8], tonumber(ARGV[9])
local seen, seen_id, seen_until = ARGV[10], ARGV[11], tonumber(ARGV[12])
local meta = KEYS[1]
local function text(number) return string.format('%.0f', number) end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local found = redis.call('HMGET', meta, 'epoch', 'head', 'last', 'age', 'low', 'run', 'evicted')
local epoch, head, last = found[1], tonumber(found[2] or 0), tonumber(found[3] or 0)
-- The age that messages were kept for so far, and up to where a shorter one may have dropped them.
local kept, dropped = tonumber(found[4] or age), tonumber(found[5] or 0)
-- Times are as exact as this.
local step = math.ceil(age / 64)
-- If the clock went back, as that of a promoted replica may, keys expire before the times say so.
local is_other = not epoch or epoch == renounced or now < last - math.ceil(kept / 64)
-- Another process has loaded an older copy perhaps, and no node is left that has seen more.
if run ~= '' and found[6] ~= run and not is_durable then is_other = true end
-- A key that was dropped since then may have been the log's.
if evicted > (found[6] == run and tonumber(found[7]) or 0) then is_other = true end
if not is_other and epoch == known_epoch then
  is_other = head < known_head
  -- The key lives for as long again. Both times are this server's, whenever the node has heard of the message.
  if not is_other and now < seen_until then
    local kept_id = redis.call('GET', base .. epoch .. ':i:' .. seen_id)
    is_other = not kept_id or string.match(kept_id, '^%d+') ~= seen
  end
end
if is_other then
  redis.call('DEL', meta)
  redis.call('HSET', meta, 'epoch', candidate, 'head', 0, 'last', 0, 'run', run, 'evicted', text(evicted))
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
