import jwt from 'jsonwebtoken';
import { JwksClient } from 'jwks-rsa';
import { acrossARotation, algorithms, audience, bareTokens, check, demand, forged, issuer, login, machineToken, refused } from './harness.mjs';

// jsonwebtoken does not support EdDSA.
const taken = algorithms.filter((algorithm) => algorithm !== 'EdDSA');
const keys = new JwksClient({ jwksUri: `${issuer}/.well-known/jwks.json` });
const verify = (token, more = {}) =>
    new Promise((resolve, reject) => {
        const key = ({ kid }, found) =>
            keys.getSigningKey(kid).then((signingKey) => found(null, signingKey.getPublicKey()), found);
        jwt.verify(token, key, { issuer, audience, algorithms: taken, ...more }, (error, claims) => (error ? reject(error) : resolve(claims)));
    });

await check('offline verification of a user', async () =>
    demand((await verify((await login()).access_token)).preferred_username === 'ada', 'the user is named'));
for (const algorithm of taken) {
    await check(`takes ${algorithm}`, async () => verify(await machineToken(algorithm)));
}
await check('does not take EdDSA, as the table says', async () => refused(verify(await machineToken('EdDSA')), 'EdDSA'));
await check('a forged token and a foreign audience are refused', async () => {
    const token = await machineToken();
    await refused(verify(forged(token)), 'a forged token');
    await refused(verify(token, { audience: 'https://other.example.com' }), 'a foreign audience');
});
await check('takes tokens without optional claims', async () => {
    for (const token of await bareTokens()) await verify(token);
});
await check('offline verification across a rotation', () => acrossARotation(verify));
