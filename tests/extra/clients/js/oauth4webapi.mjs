import * as oauth from 'oauth4webapi';
import { exportJWK, generateKeyPair } from 'jose';
import { acrossARotation, audience, bareTokens, check, demand, forged, issuer, login, machineToken, refused, secret } from './harness.mjs';

const at = new URL(issuer);
const discover = async (algorithm) =>
    oauth.processDiscoveryResponse(at, await oauth.discoveryRequest(at, { algorithm }));
const server = await discover('oauth2');
const client = (client_id) => ({ client_id });

await check('discovery by both documents', async () => {
    demand((await discover('oidc')).issuer === issuer, 'the issuer is ours');
});
await check('client_credentials', async () => {
    const robot = client('robot-es256');
    const answer = await oauth.clientCredentialsGrantRequest(
        server, robot, oauth.ClientSecretBasic(secret('robot-es256')), new URLSearchParams({ audience }));
    const tokens = await oauth.processClientCredentialsResponse(server, robot, answer);
    demand(tokens.expires_in > 200, JSON.stringify(tokens));
});
await check('refresh, introspection, signed introspection and revocation', async () => {
    const app = client('webapp'), gateway = client('gateway');
    const appAuth = oauth.ClientSecretBasic(secret('webapp')), gatewayAuth = oauth.ClientSecretPost(secret('gateway'));
    const refreshed = await oauth.processRefreshTokenResponse(
        server, app, await oauth.refreshTokenGrantRequest(server, app, appAuth, (await login()).refresh_token));
    const introspect = async (more) => oauth.processIntrospectionResponse(
        server, gateway, await oauth.introspectionRequest(server, gateway, gatewayAuth, refreshed.access_token, more));
    demand((await introspect({})).active === true, 'active');
    gateway.introspection_signed_response_alg = 'ES256';
    demand((await introspect({ requestJwtResponse: true })).active === true, 'active, signed (RFC 9701)');
    await oauth.processRevocationResponse(await oauth.revocationRequest(server, app, appAuth, refreshed.refresh_token));
    demand((await introspect({})).active === false, 'inactive once revoked');
});
await check('a wrong secret is told as a challenge', async () => {
    const answer = await oauth.introspectionRequest(server, client('gateway'), oauth.ClientSecretBasic('wrong'), 'x');
    const error = await oauth.processIntrospectionResponse(server, client('gateway'), answer).then(() => null, (e) => e);
    demand(error instanceof oauth.WWWAuthenticateChallengeError || error?.error === 'invalid_client', `${error}`);
});
await check('private_key_jwt', async () => {
    const { privateKey, publicKey } = await generateKeyPair('ES256');
    const jwk = { ...(await exportJWK(publicKey)), kid: 'one', alg: 'ES256', use: 'sig' };
    const made = await fetch(`${process.env.OPERATIONS}/admin/v1/clients`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', authorization: `Bearer ${process.env.ADMIN_KEY}` },
        body: JSON.stringify({ client_id: 'keyed', type: 'confidential', grants: ['client_credentials'], jwks: { keys: [jwk] } }),
    });
    demand(made.status === 201, `the client was answered ${made.status}`);
    const keyed = client('keyed');
    const answer = await oauth.clientCredentialsGrantRequest(
        server, keyed, oauth.PrivateKeyJwt({ key: privateKey, kid: 'one' }), new URLSearchParams());
    await oauth.processClientCredentialsResponse(server, keyed, answer);
});
const verify = (token, options) => {
    const request = new Request('https://api.example.com/orders', { headers: { authorization: `Bearer ${token}` } });
    return oauth.validateJwtAccessToken(server, request, audience, options);
};
await check('RFC 9068 validation refuses a forged token', async () => {
    const token = await machineToken();
    demand((await verify(token)).client_id === 'robot-es256', 'the client is named');
    await refused(verify(forged(token)), 'a forged token');
});
await check('takes tokens without optional claims', async () => {
    for (const token of await bareTokens()) await verify(token);
});
await check('offline verification across a rotation', () => acrossARotation((token) => verify(token)));
