// Asks Countersign about the bearer token of a request (RFC 7662). Fails closed: any answer but a valid
// `active: true` refuses the request.

import crypto from 'crypto';

const HEADERS = {
    sub: 'X-Auth-Request-User',
    username: 'X-Auth-Request-Preferred-Username',
    client_id: 'X-Auth-Request-Client-Id',
    scope: 'X-Auth-Request-Scopes',
    roles: 'X-Auth-Request-Roles',
    sid: 'X-Auth-Request-Session',
    exp: 'X-Auth-Request-Expires',
};

function bearer(r) {
    const found = /^bearer +([A-Za-z0-9._~+\/=-]+)$/i.exec(r.headersIn['Authorization'] || '');
    return found ? found[1] : '';
}

/** What an answer is kept under. */
function digest(r) {
    return crypto.createHash('sha256').update(bearer(r)).digest('base64url');
}

async function authorize(r) {
    const token = bearer(r);
    if (!token) {
        return refuse(r, 'Bearer');
    }
    const reply = await r.subrequest('/_introspect', { method: 'POST', body: 'token=' + encodeURIComponent(token) });
    if (reply.status !== 200) {
        r.error('introspection answered ' + reply.status);
        return r.return(503);
    }
    let answer;
    try {
        answer = JSON.parse(reply.responseText);
    } catch (e) {
        r.error('introspection answered something that is not JSON');
        return r.return(503);
    }
    if (answer.active !== true || answer.token_type !== 'Bearer' || !(answer.exp * 1000 > Date.now())) {
        return refuse(r, 'Bearer error="invalid_token"');
    }
    if ([].concat(answer.aud).indexOf(r.variables.required_audience) < 0) {
        return r.return(403);
    }
    Object.keys(HEADERS).forEach((claim) => {
        if (answer[claim] !== undefined) {
            r.headersOut[HEADERS[claim]] = String(answer[claim]);
        }
    });
    r.return(204);
}

function refuse(r, challenge) {
    r.headersOut['WWW-Authenticate'] = challenge;
    r.return(401);
}

export default { authorize, digest };
