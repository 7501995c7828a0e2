// A client generated from the document: it compiles only while the document describes what is used here, and logs in.
import createClient from 'openapi-fetch';
import type { paths } from './api.js';

const api = createClient<paths>({ baseUrl: process.env.ISSUER });
const credentials = { username: 'ada', password: process.env.PASSWORD ?? '', client_id: 'account' };

const login = await api.POST('/v1/login', { body: credentials });
if (!login.data) throw new Error(`login: ${JSON.stringify(login.error)}`);
const expiresIn: number = login.data.expires_in;
const authorization = `Bearer ${login.data.access_token}`;

const me = await api.GET('/v1/me', { headers: { authorization } });
if (me.data?.username !== 'ada' || expiresIn < 200) throw new Error(`me: ${JSON.stringify(me)}`);

const refused = await api.POST('/v1/login', { body: { ...credentials, password: 'a wrong pass phrase' } });
if (refused.response.status !== 401 || refused.error === undefined) throw new Error(`a wrong password: ${refused.response.status}`);

const ended = await api.POST('/v1/logout', { headers: { authorization } });
if (ended.response.status !== 204) throw new Error(`logout: ${ended.response.status}`);
console.log('ok a client generated from the document compiles and logs in');
