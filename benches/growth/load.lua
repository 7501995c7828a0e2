-- Clients of benches/growth/run: each thread has one connection, and its own tokens in a file. A refresh goes on with the
-- token of its answer; revocations take one token after the other.
local kind, folder, proof = os.getenv("KIND"), os.getenv("HOME_FOLDER"), os.getenv("PROOF")
local threads = {}
local headers = { ["Authorization"] = proof, ["Content-Type"] = "application/x-www-form-urlencoded" }

function setup(thread)
    thread:set("number", #threads)
    table.insert(threads, thread)
end

function init()
    tokens, at, good, bad = {}, 0, 0, 0
    for line in io.lines(folder .. "/tokens-" .. number) do
        table.insert(tokens, line)
    end
end

function request()
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
    if status == 200 and (kind == "refresh" or at <= #tokens) then
        good = good + 1
    else
        bad = bad + 1
    end
end

-- The last line is read by benches/growth/run.
function done(summary, latency)
    local good, bad = 0, 0
    for _, thread in ipairs(threads) do
        good = good + thread:get("good")
        bad = bad + thread:get("bad")
    end
    print(string.format('{"done":%d,"failed":%d,"seconds":%f,"p50":%f,"p99":%f}', good, bad, summary.duration / 1e6,
        latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
