-- Asks Countersign about the bearer token of a request (RFC 7662). Fails closed: any answer but a valid
-- `active: true` refuses the request.

local cjson = require "cjson.safe"
local introspected = ngx.shared.introspected

local HEADERS = {
    sub = "X-Auth-Request-User",
    username = "X-Auth-Request-Preferred-Username",
    client_id = "X-Auth-Request-Client-Id",
    scope = "X-Auth-Request-Scopes",
    roles = "X-Auth-Request-Roles",
    sid = "X-Auth-Request-Session",
    exp = "X-Auth-Request-Expires",
}

local function refuse(challenge)
    ngx.header["WWW-Authenticate"] = challenge
    return ngx.exit(ngx.HTTP_UNAUTHORIZED)
end

-- A subrequest's headers keep the upper and lower case that was sent.
local function header(reply, wanted)
    for name, value in pairs(reply.header) do
        if name:lower() == wanted and type(value) == "string" then
            return value
        end
    end
    return ""
end

-- Calls introspection and caches the answer for its max-age, which never exceeds the lifetime of the token.
local function introspect(token)
    local kept = introspected:get(token)
    if kept then
        return kept
    end
    local reply = ngx.location.capture("/_introspect", {
        method = ngx.HTTP_POST, body = "token=" .. ngx.escape_uri(token),
    })
    if reply.status ~= 200 or reply.truncated then
        return nil
    end
    local max_age = tonumber(header(reply, "cache-control"):match("max%-age=(%d+)"))
    if max_age and max_age > 0 then
        introspected:set(token, reply.body, max_age)
    end
    return reply.body
end

local function contains(list, wanted)
    if type(list) ~= "table" then
        return list == wanted
    end
    for _, entry in ipairs(list) do
        if entry == wanted then
            return true
        end
    end
    return false
end

local function authorize(required_audience)
    for _, name in pairs(HEADERS) do
        ngx.req.clear_header(name)
    end
    local authorization = ngx.req.get_headers()["Authorization"]
    if type(authorization) == "table" then
        return refuse('Bearer error="invalid_request"')
    end
    local token = authorization and authorization:match("^[Bb][Ee][Aa][Rr][Ee][Rr] +([%w%._~%+/=%-]+)$")
    if not token then
        return refuse("Bearer")
    end
    local body = introspect(token)
    local answer = body and cjson.decode(body)
    if type(answer) ~= "table" then
        return ngx.exit(ngx.HTTP_SERVICE_UNAVAILABLE)
    end
    if answer.active ~= true or answer.token_type ~= "Bearer" or (tonumber(answer.exp) or 0) <= ngx.time() then
        return refuse('Bearer error="invalid_token"')
    end
    if not contains(answer.aud, required_audience) then
        return ngx.exit(ngx.HTTP_FORBIDDEN)
    end
    for claim, name in pairs(HEADERS) do
        local value = answer[claim]
        if value ~= nil then
            ngx.req.set_header(name, type(value) == "table" and table.concat(value, ",") or tostring(value))
        end
    end
end

return { authorize = authorize }
