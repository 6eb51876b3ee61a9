local answer = { epoch, text(head) }
for at = 13, #ARGV do answer[#answer + 1] = text(newest(ARGV[at]) or 0) end
return answer
