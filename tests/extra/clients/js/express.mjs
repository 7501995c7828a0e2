import express from 'express';
import { auth, requiredScopes } from 'express-oauth2-jwt-bearer';
import { acrossARotation, algorithms, audience, check, demand, forged, issuer, machineToken } from './harness.mjs';

// The middleware accepts one configured algorithm and takes everything else from discovery.
const app = express();
app.use(auth({ issuerBaseURL: issuer, audience, clockTolerance: 0 }));
app.get('/orders', requiredScopes('read'), (request, response) => response.json(request.auth.payload));
app.get('/secrets', requiredScopes('root'), (_, response) => response.json({}));
app.use((error, _, response, next) => {
    if (response.headersSent) return next(error);
    response.set(error.headers ?? {}).status(error.status ?? 500).json({ message: error.message });
});
const server = app.listen(0, '127.0.0.1');
await new Promise((resolve) => server.once('listening', resolve));
const ask = (token, path = '/orders') =>
    fetch(`http://127.0.0.1:${server.address().port}${path}`, { headers: token ? { authorization: `Bearer ${token}` } : {} });

await check('discovery and a good token', async () => {
    const answer = await ask(await machineToken());
    demand(answer.status === 200 && (await answer.json()).client_id === 'robot-es256', `${answer.status}`);
});
for (const algorithm of algorithms) {
    await check(`takes ${algorithm}`, async () => demand((await ask(await machineToken(algorithm))).status === 200, 'refused'));
}
await check('no token, a forged token and a missing scope are refused', async () => {
    const token = await machineToken();
    demand((await ask()).status === 401, 'no token');
    demand((await ask(forged(token))).status === 401, 'forged');
    demand((await ask(token, '/secrets')).status === 403, 'scope');
});
await check('offline verification across a rotation', () =>
    acrossARotation(async (token) => demand((await ask(token)).status === 200, 'refused')));
server.close();
server.closeAllConnections();
