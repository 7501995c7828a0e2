-- Clients of benches/growth/run: each thread has one connection, and its own tokens in a file. A refresh goes on with the
-- token of its answer; revocations take one token after the other.
local kind, folder, proof = os.getenv("KIND"), os.getenv("HOME_FOLDER"), os.getenv("PROOF")
local threads = {}
local ffi = require("ffi")
ffi.cdef("typedef struct { long sec, usec; } instant; int gettimeofday(instant *, void *);")

local function now()
    local instant = ffi.new("instant")
    ffi.C.gettimeofday(instant, nil)
    return tonumber(instant.sec) * 1e6 + tonumber(instant.usec)
end

local headers = { ["Authorization"] = proof, ["Content-Type"] = "application/x-www-form-urlencoded" }

function setup(thread)
    thread:set("number", #threads)
    table.insert(threads, thread)
end

function init()
    tokens, at, good, bad, began, ended = {}, 0, 0, 0, 0, 1
    for line in io.lines(folder .. "/tokens-" .. number) do
        table.insert(tokens, line)
    end
end

function request()
    if began == 0 then
        began = now()
    end
    if kind == "refresh" then
        headers["Content-Type"] = "application/json"
        local body = '{"client_id":"application","refresh_token":"' .. tokens[1] .. '"}'
        return wrk.format("POST", "/v1/refresh", headers, body)
    end
    at = at + 1
    return wrk.format("POST", "/oauth2/revoke", headers, "token=" .. (tokens[at] or "none"))
end

function response(status, _, body)
    if kind == "refresh" and status == 200 then
        tokens[1] = string.match(body, '"refresh_token":"([^"]+)"')
    end
    -- To revoke what is no token is answered 200 as well.
    if kind == "revoke" and at > #tokens then
        wrk.thread:stop()
    elseif status == 200 then
        good, ended = good + 1, now()
    else
        bad = bad + 1
    end
end

-- The last line is read by benches/growth/run.
function done(summary, latency)
    local good, bad, rate = 0, 0, 0
    for _, thread in ipairs(threads) do
        good = good + thread:get("good")
        bad = bad + thread:get("bad")
        rate = rate + thread:get("good") * 1e6 / (thread:get("ended") - thread:get("began"))
    end
    print(string.format('{"done":%d,"failed":%d,"rate":%f,"p50":%f,"p99":%f}', good, bad, rate,
        latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
