// The second port: what only a test may do to a provider. See server.mjs for the requests.

import { createServer } from 'node:http';

import { SignJWT, decodeJwt, decodeProtectedHeader, importJWK } from 'jose';

import { readBody } from '../common/part.mjs';
import { signRaw, signWithPublicKeyAsSecret } from './keys.mjs';

const now = () => Math.floor(Date.now() / 1000);

// `changes` over `base`; a null takes the member away.
function over(base, changes = {}) {
  return Object.fromEntries(Object.entries({ ...base, ...changes }).filter(([, value]) => value !== null));
}

async function signAnything(keys, asked) {
  const like = asked.like === undefined ? {} : { header: decodeProtectedHeader(asked.like), claims: decodeJwt(asked.like) };
  const alg = asked.alg ?? like.header?.alg ?? 'ES256';
  const name = asked.key ?? 'current';
  const jwk = await keys.find(name === 'none' || name === 'public-as-secret' ? 'current' : name, alg);
  if (jwk === undefined) throw new TypeError(`no ${name} key for ${alg}`);

  const usual = { none: 'none', 'public-as-secret': 'HS256' }[name] ?? jwk.alg;
  const header = asked.header_text
    ?? JSON.stringify(over({ ...like.header, alg: usual, typ: 'at+jwt', kid: jwk.kid }, asked.header));
  const fromNow = Object.fromEntries(Object.entries(asked.from_now ?? {}).map(([claim, seconds]) => [claim, now() + seconds]));
  let payload = JSON.stringify(over({ ...like.claims, ...fromNow }, asked.claims));
  if (asked.claims_text !== undefined) payload = asked.claims_text;
  if (asked.claims_base64url !== undefined) payload = Buffer.from(asked.claims_base64url, 'base64url');

  if (name === 'public-as-secret') return signWithPublicKeyAsSecret(header, payload, jwk);
  return signRaw(header, payload, name === 'none' ? null : jwk);
}

async function clientAssertion(state, { client_id: id, claims }) {
  const client = state.clients[id];
  if (client?.private_jwk === undefined) throw new TypeError(`${id} has no private key`);
  const payload = over({
    iss: id, sub: id, aud: state.issuer, jti: crypto.randomUUID(), iat: now(), exp: now() + 60,
  }, claims);
  return new SignJWT(payload)
    .setProtectedHeader({ alg: 'ES256', kid: client.private_jwk.kid })
    .sign(await importJWK(client.private_jwk, 'ES256'));
}

// What the library does for each client of a session that ended, without the browser that would end it.
async function logout({ provider }, { client_id: id, username, sid, uri }) {
  const client = await provider.Client.find(id);
  if (client === undefined) throw new TypeError(`no client ${id}`);
  client.backchannelLogoutUri = uri;
  client.backchannelLogoutSessionRequired = sid !== undefined;
  client.idTokenSignedResponseAlg = 'ES256';
  await client.backchannelLogout(username, sid);
  return {};
}

function credentials({ metadata, secret, private_jwk }) {
  return { method: metadata.token_endpoint_auth_method, grant_types: metadata.grant_types, secret, private_jwk };
}

// `state`: {issuer, keys, clients, provider, faults: {jwks, discovery}, counts, rebuild()}.
export function createControl(state) {
  const published = () => state.keys.published.map(({ kid, alg }) => ({ kid, alg }));
  const actions = {
    'POST /rotate': async ({ alg = 'ES256', remove_old: removeOld = false }) => {
      const { kid } = await state.keys.rotate(alg, removeOld);
      state.rebuild();
      return { kid, published: published() };
    },
    'POST /jwks-status': async (fault) => { state.faults.jwks = fault; return fault; },
    'POST /discovery-status': async (fault) => { state.faults.discovery = fault; return fault; },
    'POST /sign': async (asked) => ({ token: await signAnything(state.keys, asked) }),
    'POST /logout': (asked) => logout(state, asked),
    'POST /client-assertion': async (asked) => ({
      client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
      client_assertion: await clientAssertion(state, asked),
    }),
    'GET /clients': async () => (
      Object.fromEntries(Object.entries(state.clients).map(([id, client]) => [id, credentials(client)]))
    ),
    'GET /keys': async () => ({ published: published(), removed: state.keys.removed.map(({ kid, alg }) => ({ kid, alg })) }),
    'GET /counts': async () => state.counts,
  };

  return createServer(async (request, response) => {
    const answer = (status, value) => {
      response.writeHead(status, { 'content-type': 'application/json' });
      response.end(JSON.stringify(value));
    };
    try {
      const body = await readBody(request);
      const action = actions[`${request.method} ${request.url}`];
      if (action === undefined) return answer(404, { error: `one of: ${Object.keys(actions).join(', ')}` });
      return answer(200, await action(body.length === 0 ? {} : JSON.parse(body)));
    } catch (error) {
      return answer(400, { error: error.message });
    }
  });
}
