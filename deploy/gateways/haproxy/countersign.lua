-- Asks Countersign's forward-auth endpoint about a request. Fails closed: without an answer, txn.auth_status is 503.

local VERIFY = "http://127.0.0.1:8080/v1/verify?aud=https://api.example.com"
-- HAProxy tries four times (2.6), so a request to a service that hangs fails after two seconds.
local TIMEOUT_MILLISECONDS = 500
local IDENTITY = "x-auth-request-"

core.register_action("countersign", { "http-req" }, function(txn)
    txn:set_var("txn.auth_status", 503)
    local given = txn.http:req_get_headers()["authorization"]
    local headers = {}
    if given then
        if given[1] then
            txn:set_var("txn.auth_status", 401)
            txn:set_var("txn.auth_challenge", 'Bearer error="invalid_request"')
            return
        end
        headers["authorization"] = { given[0] }
    end
    local answer = core.httpclient():get { url = VERIFY, headers = headers, timeout = TIMEOUT_MILLISECONDS }
    if not answer or not answer.status or answer.status == 0 then
        return
    end
    txn:set_var("txn.auth_status", answer.status)
    local challenge = answer.headers and answer.headers["www-authenticate"]
    if challenge then
        txn:set_var("txn.auth_challenge", challenge[0])
    end
    if answer.status == 200 then
        for name, values in pairs(answer.headers) do
            if name:sub(1, #IDENTITY) == IDENTITY then
                txn.http:req_set_header(name, values[0])
            end
        end
    end
end)
