import { createRemoteJWKSet, jwtVerify } from 'jose';
import { acrossARotation, algorithms, audience, bareTokens, check, demand, forged, issuer, login, machineToken, refused } from './harness.mjs';

const keys = createRemoteJWKSet(new URL(`${issuer}/.well-known/jwks.json`));
const verify = (token, more = {}) => jwtVerify(token, keys, { issuer, audience, typ: 'at+jwt', algorithms, ...more });

await check('offline verification of a user', async () => {
    const { payload } = await verify((await login()).access_token);
    demand(payload.preferred_username === 'ada', 'the user is named');
});
for (const algorithm of algorithms) {
    await check(`takes ${algorithm}`, async () => {
        const { protectedHeader } = await verify(await machineToken(algorithm));
        demand(protectedHeader.alg === algorithm, protectedHeader.alg);
    });
}
await check('a forged token and a foreign audience are refused', async () => {
    const token = await machineToken();
    await refused(verify(forged(token)), 'a forged token');
    await refused(verify(token, { audience: 'https://other.example.com' }), 'a foreign audience');
});
await check('takes tokens without optional claims', async () => {
    for (const token of await bareTokens()) await verify(token);
});
await check('offline verification across a rotation', () => acrossARotation(verify));
