import * as oidc from 'openid-client';
import { audience, check, demand, issuer, login, secret } from './harness.mjs';

const discover = (client, authentication) => oidc.discovery(new URL(issuer), client, undefined, authentication(secret(client)));

await check('discovery by both documents', async () => {
    for (const algorithm of ['oidc', 'oauth2']) {
        const config = await oidc.discovery(new URL(issuer), 'webapp', secret('webapp'), undefined, { algorithm });
        demand(config.serverMetadata().issuer === issuer, 'the issuer is ours');
    }
});
for (const [name, authentication] of [['basic', oidc.ClientSecretBasic], ['post', oidc.ClientSecretPost]]) {
    await check(`client_credentials with client_secret_${name}`, async () => {
        const tokens = await oidc.clientCredentialsGrant(await discover('robot-es256', authentication), { audience });
        demand(tokens.token_type === 'bearer' && tokens.expiresIn() > 200, JSON.stringify(tokens));
    });
}
await check('refresh, introspection and revocation', async () => {
    const app = await discover('webapp', oidc.ClientSecretBasic);
    const gateway = await discover('gateway', oidc.ClientSecretBasic);
    const tokens = await oidc.refreshTokenGrant(app, (await login()).refresh_token);
    const before = await oidc.tokenIntrospection(gateway, tokens.access_token);
    demand(before.active === true && before.username === 'ada', JSON.stringify(before));
    await oidc.tokenRevocation(app, tokens.refresh_token);
    const after = await oidc.tokenIntrospection(gateway, tokens.access_token);
    demand(after.active === false && Object.keys(after).length === 1, JSON.stringify(after));
    const error = await oidc.refreshTokenGrant(app, tokens.refresh_token).then(() => null, (error) => error);
    demand(error?.error === 'invalid_grant', `a revoked refresh token: ${error}`);
});
await check('a token response and introspection without a scope', async () => {
    const tokens = await oidc.clientCredentialsGrant(await discover('bare', oidc.ClientSecretBasic), { audience });
    const gateway = await discover('gateway', oidc.ClientSecretBasic);
    const said = await oidc.tokenIntrospection(gateway, tokens.access_token);
    demand(tokens.scope === undefined && said.active === true && !('scope' in said), JSON.stringify(said));
});
await check('a wrong secret is told as invalid_client', async () => {
    const config = await oidc.discovery(new URL(issuer), 'gateway', undefined, oidc.ClientSecretBasic('wrong'));
    const error = await oidc.clientCredentialsGrant(config).then(() => null, (error) => error);
    demand(error?.cause?.[0]?.scheme === 'basic' || error?.error === 'invalid_client', `${error}`);
});
