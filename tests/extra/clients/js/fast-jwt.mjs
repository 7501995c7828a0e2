// The libraries that @fastify/jwt consists of.
import { createVerifier } from 'fast-jwt';
import buildGetJwks from 'get-jwks';
import { acrossARotation, algorithms, audience, bareTokens, check, demand, forged, issuer, login, machineToken, refused } from './harness.mjs';

// get-jwks does not support OKP keys.
const taken = algorithms.filter((algorithm) => algorithm !== 'EdDSA');
const keys = buildGetJwks({ jwksPath: '/.well-known/jwks.json', issuersWhitelist: [`${issuer}/`, issuer] });
const verifier = (allowedAud) =>
    createVerifier({
        key: ({ header }) => keys.getPublicKey({ kid: header.kid, alg: header.alg, domain: issuer }),
        algorithms: taken, allowedIss: issuer, allowedAud,
    });
const verify = verifier(audience);

await check('offline verification of a user', async () =>
    demand((await verify((await login()).access_token)).preferred_username === 'ada', 'the user is named'));
for (const algorithm of taken) {
    await check(`takes ${algorithm}`, async () => verify(await machineToken(algorithm)));
}
await check('does not take EdDSA, as the table says', async () => refused(verify(await machineToken('EdDSA')), 'EdDSA'));
await check('a forged token and a foreign audience are refused', async () => {
    const token = await machineToken();
    await refused(verify(forged(token)), 'a forged token');
    await refused(verifier('https://other.example.com')(token), 'a foreign audience');
});
await check('takes tokens without optional claims', async () => {
    for (const token of await bareTokens()) await verify(token);
});
await check('offline verification across a rotation', () => acrossARotation(verify));
