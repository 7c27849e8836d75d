-- For wrk: posts the bodies of a file (one a line) in turn, and prints the measurements as one line of JSON.
-- Arguments: the file, the first number, how many requests are enough (0: the time alone ends the run), the groups.
-- In a body, <+> stands for the next number, <=> for the same number again, and <%> for its group (benchmarks.bodies).
-- When enough requests have left, it prints ENOUGH, and whoever started wrk ends it by SIGINT.
-- No `response` function: with one, wrk would copy every answer into Lua, and measure itself.

local headers = { ["Content-Type"] = "application/json" }
local requests, at, sent = {}, 0, 0
local number, enough, groups

-- The text before the first mark, the mark, the text after it, and so on. A body without marks is a whole request.
local function prepare(line)
  local parts, from = {}, 1
  while true do
    local mark, last = line:find("<[+=%%]>", from)
    if not mark then break end
    parts[#parts + 1] = line:sub(from, mark - 1)
    parts[#parts + 1] = line:sub(mark + 1, mark + 1)
    from = last + 1
  end
  if #parts == 0 then return wrk.format("POST", nil, headers, line) end
  parts[#parts + 1] = line:sub(from)
  return parts
end

local function fill(parts)
  local filled, same, group = {}, string.format("%08x", number), tostring(number % groups)
  for place = 1, #parts, 2 do
    filled[place] = parts[place]
    local mark = parts[place + 1]
    if mark == "+" then
      number = number + 1
      same, group = string.format("%08x", number), tostring(number % groups)
    end
    if mark then filled[place + 1] = mark == "%" and group or same end
  end
  return wrk.format("POST", nil, headers, table.concat(filled))
end

function init(args)
  number, enough, groups = tonumber(args[2]), tonumber(args[3]), tonumber(args[4])
  for line in io.lines(args[1]) do
    requests[#requests + 1] = prepare(line)
  end
end

function request()
  sent = sent + 1
  if sent == enough then
    io.write("ENOUGH\n")
    io.flush()
  end
  at = at % #requests + 1
  local prepared = requests[at]
  return type(prepared) == "string" and prepared or fill(prepared)
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\nRESULT {"answers": %d, "microseconds": %d, "p50": %.0f, "p99": %.0f, "refused": %d, "broken": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), errors.status,
    errors.connect + errors.read + errors.write + errors.timeout))
end
