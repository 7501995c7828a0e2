// Shared by all programs: the address of the service, tokens of a user, and one line per check.

export const issuer = process.env.ISSUER;
export const audience = process.env.AUDIENCE;
export const algorithms = ['ES256', 'EdDSA', 'RS256', 'PS256'];

/** Secret of a client. */
export const secret = (client) => process.env[`SECRET_${client.toUpperCase().replaceAll('-', '_')}`];

const basic = (client) => 'Basic ' + Buffer.from(`${client}:${secret(client)}`).toString('base64');

/** A user's tokens for a confidential client: a REST call, not part of any library. */
export async function login(username = 'ada', client = 'webapp') {
    const answer = await fetch(`${issuer}/v1/login`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', authorization: basic(client) },
        body: JSON.stringify({ username, password: process.env.PASSWORD, client_id: client, audience }),
    });
    if (!answer.ok) throw new Error(`login was answered ${answer.status}`);
    return answer.json();
}

/** A user's and a client's access token without any optional claim. */
export async function bareTokens() {
    const answer = await fetch(`${issuer}/oauth2/token`, {
        method: 'POST',
        headers: { authorization: basic('bare') },
        body: new URLSearchParams({ grant_type: 'client_credentials', audience }),
    });
    return [(await login('bob', 'bare')).access_token, (await answer.json()).access_token];
}

/** A token of a machine, signed with `algorithm`. */
export async function machineToken(algorithm = 'ES256') {
    const client = `robot-${algorithm.toLowerCase()}`;
    const answer = await fetch(`${issuer}/oauth2/token`, {
        method: 'POST',
        headers: { authorization: basic(client) },
        body: new URLSearchParams({ grant_type: 'client_credentials', audience }),
    });
    return (await answer.json()).access_token;
}

export const headerOf = (token) => JSON.parse(Buffer.from(token.split('.')[0], 'base64url'));

export function demand(condition, text) {
    if (!condition) throw new Error(text);
}

/** Fails unless the promise is rejected. */
export async function refused(promise, what) {
    const accepted = await promise.then(() => true, () => false);
    demand(!accepted, `${what} was accepted`);
}

export async function check(name, body) {
    try {
        await body();
        console.log(`ok ${name}`);
    } catch (error) {
        console.log(`FAILED ${name}: ${error?.stack ?? error}`.replaceAll('\n', ' '));
    }
}

/** Calls `verify` with fresh tokens until some time after the service signs with its next key. */
export async function acrossARotation(verify) {
    const first = process.env.FIRST_KID;
    let after = 0;
    for (let attempt = 0; attempt < 200 && after < 3; attempt++) {
        const token = await machineToken();
        if (headerOf(token).kid !== first) after++;
        await verify(token);
        await new Promise((resolve) => setTimeout(resolve, 300));
    }
    demand(after === 3, 'the next key never signed');
}

/** The token with its last characters changed. */
export const forged = (token) => token.slice(0, -8) + (token.endsWith('AAAAAAAA') ? 'BBBBBBBB' : 'AAAAAAAA');
