local user, after, limit = ARGV[13], ARGV[14], tonumber(ARGV[15])
local answer = { epoch, text(head), text(floor()), text(newest(user) or 0) }
local from, count, bytes = after .. '-0', 0, 0
while count < limit and bytes < 262144 do
  local asked = math.min(16, limit - count)
  local part = redis.call('XRANGE', base .. epoch .. ':l:' .. user, '(' .. from, '+', 'COUNT', asked)
  for _, entry in ipairs(part) do
    from = entry[1]
    count, bytes = count + 1, bytes + #entry[2][4]
    answer[#answer + 1] = string.match(from, '^%d+')
    answer[#answer + 1] = entry[2][2]
    answer[#answer + 1] = entry[2][4]
  end
  if #part < asked then break end
end
return answer
