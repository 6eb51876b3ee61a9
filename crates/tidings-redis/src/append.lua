local max, window, id, user, channel, body = ARGV[8], ARGV[9], ARGV[10], ARGV[11], ARGV[12], ARGV[13]
local at = base .. epoch .. ':i:' .. id
local before = redis.call('GET', at)
if before then return { epoch, text(head), before } end
local key = base .. epoch .. ':l:' .. user
local low = floor()
local previous = text(newest(user) or low)
local offset = text(head + 1)
-- The first to write: a server that is full or takes no writes refuses it, and nothing has happened. What is published is seen
-- by others only after the whole script.
redis.call('HSET', meta, 'head', offset, 'last', text(now))
local told = redis.pcall('PUBLISH', channel, 'm ' .. epoch .. ' ' .. offset .. ' ' .. previous .. ' ' .. id .. '\n' .. body)
if type(told) == 'table' and told.err then return told end
redis.call('XADD', key, 'MAXLEN', max, offset .. '-0', 'p', previous, 'b', body)
if low > 0 then redis.call('XTRIM', key, 'MINID', text(low + 1) .. '-0') end
redis.call('SET', at, offset, 'PX', window)
-- How far the log was at which time, in steps of a 64th of the age. A key lives for two steps longer than that.
local step = math.ceil(age / 64)
redis.call('PEXPIRE', key, age + 2 * step)
local sampled = redis.call('ZREVRANGE', times, 0, 0, 'WITHSCORES')[2]
if not sampled or now - tonumber(sampled) >= step then
  if last > 0 then redis.call('ZADD', times, last, text(head)) end
  redis.call('ZADD', times, now, offset)
  redis.call('ZREMRANGEBYRANK', times, 0, -257)
  redis.call('PEXPIRE', times, age * 4)
end
return { epoch, offset, offset }
