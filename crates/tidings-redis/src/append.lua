local max, window, id, user, channel, body = ARGV[13], ARGV[14], ARGV[15], ARGV[16], ARGV[17], ARGV[18]
local at = base .. epoch .. ':i:' .. id
local before = redis.call('GET', at)
if before then return { epoch, text(head), string.match(before, '^(%d+) (%d+)$') } end
-- Until then, the log must recognize the message. For how long it does so beyond that is a margin.
local until_time = text(now + math.floor(window / 2))
local key = base .. epoch .. ':l:' .. user
local aged = aged_out()
local previous = text(newest(user) or floor())
local offset = text(head + 1)
-- Another age: what was appended before may be dropped before or after it.
local low = kept == age and dropped or head
-- The first to write: a server that is full or takes no writes refuses it, and nothing has happened.
redis.call('HSET', meta, 'head', offset, 'last', text(math.max(now, last)), 'age', text(age), 'low', text(low))
local function append()
  redis.call('XADD', key, 'MAXLEN', max, offset .. '-0', 'p', previous, 'b', body)
  if aged > 0 then redis.call('XTRIM', key, 'MINID', text(aged + 1) .. '-0') end
  redis.call('SET', at, offset .. ' ' .. until_time, 'PX', window)
  -- How far the log was at which time. A key lives for two steps longer than the age.
  redis.call('PEXPIRE', key, age + 2 * step)
  local sampled = redis.call('ZREVRANGE', times, 0, 0, 'WITHSCORES')[2]
  if not sampled or now - tonumber(sampled) >= step then
    if last > 0 then redis.call('ZADD', times, last, text(head)) end
    redis.call('ZADD', times, now, offset)
    redis.call('ZREMRANGEBYRANK', times, 0, -257)
    redis.call('PEXPIRE', times, age * 4)
  end
  -- Last, since it cannot be undone: streams have nothing that the log lacks.
  redis.call('PUBLISH', channel, 'm ' .. epoch .. ' ' .. offset .. ' ' .. previous .. ' ' .. id .. ' ' .. until_time .. '\n' .. body)
end
local appended, refusal = pcall(append)
if not appended then
  -- A command is not permitted to this node. The log keeps nothing that the node is told was refused.
  redis.pcall('XDEL', key, offset .. '-0')
  redis.pcall('DEL', at)
  if type(refusal) == 'table' then refusal = refusal.err end
  return redis.error_reply(refusal)
end
return { epoch, offset, offset, until_time }
