-- every request for another URL: none is ever asked for twice within one run
local i, salt = 0, 0
function init(args) salt = args[1] or os.time() end
function request()
  i = i + 1
  return wrk.format("GET", string.format("/feed/%06d.json?%s-%d", i % 1000000, salt, i))
end
