// A real OpenID provider (the `oidc-provider` library) whose keys a test can rotate and whose JWKS a test can break.
//
//   node server.mjs [--port 0] [--control-port 0] [--tls DIR]
//
// Ready line: {"ready":true,"port","control_port","issuer","control","ca"}. --tls serves https, under a CA made in DIR.
//
// On --port: /.well-known/openid-configuration, /jwks (ES256, EdDSA, RS256) and /token. Every access token is a JWT
// (RFC 9068, typ at+jwt) of 300 s (`lifetime`: less, for a user token up to 3600), signed ES256 unless `signing_alg` says
// EdDSA or RS256. Users: alice, bob
// (tenant acme), carol (globex), dave (acme, no groups). Clients: portal, support-v1, nightly-report (client_secret_basic),
// support-v2, refund-helper (private_key_jwt); GET /clients on the control port tells their credentials.
//
//   POST /token, form-encoded:
//   grant_type=client_credentials [scope, resource]                 an agent's own token: no user, no act
//   grant_type=urn:example:test:user  username [audience, scope, acr, lifetime, signing_alg, dpop_jkt]
//                                     client portal: a user's own token, as if logged in, with groups, roles, tenant, sid
//   grant_type=urn:ietf:params:oauth:grant-type:token-exchange
//       subject_token, subject_token_type=urn:ietf:params:oauth:token-type:access_token
//       [audience or resource, scope, authorization_details (JSON, type urn:countersign:action), run_id, task_id, grant_id,
//        stage, use_case, sensitivity, user_presence, instance, lifetime, signing_alg, dpop_jkt,
//        delegation_chain=true (adds that claim), requested_actor=CLIENT (adds may_act)]
//                                     an agent client: sub = the user, act = the client; scope and details only narrow.
//                                     A token that has an actor already is extended only by the client in its may_act.
//
// On --control-port, JSON in and out:
//   POST /rotate             {"alg":"ES256","remove_old":false}: a new first key → {"kid","published":[{"kid","alg"}]}
//   POST /jwks-status        {"status":503} · {"delay_ms":2000} · {"body":"garbage","content_type":"text/html"} · {"hang":true};
//                            they combine and stay until {} is sent
//   POST /discovery-status   the same for discovery
//   POST /sign               {"header":{…},"claims":{…},"key":"current"} → {"token"}: any token under a real key.
//                            key: current | unpublished | removed | none (alg none) | public-as-secret (HS256) | a kid;
//                            "alg" chooses among the keys. header is laid over {alg, typ: at+jwt, kid}; null removes a member.
//                            "like": a token whose header and claims are the base; "from_now": {"exp":300} seconds from now;
//                            "header_text", "claims_text", "claims_base64url": those bytes, exactly
//   POST /logout             {"client_id":"portal","username":"alice","sid":"…","uri":"…"}: the library's own back-channel
//                            logout of that client, at that URL; without sid for all of the user's; 400 if it is not taken
//   POST /client-assertion   {"client_id":"support-v2","claims":{…}} → {"client_assertion_type","client_assertion"}
//   GET  /clients, GET /keys, GET /counts ({"jwks","discovery","token"}: requests so far)

import { createServer } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import { setTimeout as sleep } from 'node:timers/promises';

import { certificates } from '../common/certificates.mjs';
import { endWithTheTest, listen, options, ready } from '../common/part.mjs';
import { createControl } from './control.mjs';
import { KeyRing } from './keys.mjs';
import { createProvider, createStorage } from './provider.mjs';
import { createClients } from './registry.mjs';

endWithTheTest();
const asked = options({ port: '0', 'control-port': '0', tls: '' });

const PATHS = {
  '/jwks': 'jwks', '/token': 'token',
  '/.well-known/openid-configuration': 'discovery', '/.well-known/oauth-authorization-server': 'discovery',
};
const counts = { jwks: 0, discovery: 0, token: 0 };
const faults = { jwks: {}, discovery: {} };
let serve = (request, response) => response.destroy();

// True when the fault has answered in the provider's place.
async function inject(fault, response) {
  if (fault.delay_ms) await sleep(fault.delay_ms);
  if (fault.hang) return true;
  if (fault.status === undefined && fault.body === undefined) return false;
  response.writeHead(fault.status ?? 200, { 'content-type': fault.content_type ?? 'application/json' });
  response.end(fault.body ?? '');
  return true;
}

async function handle(request, response) {
  const name = PATHS[request.url.split('?')[0]];
  if (name !== undefined) counts[name] += 1;
  if (await inject(faults[name] ?? {}, response)) return;
  serve(request, response);
}

const made = asked.tls ? certificates(asked.tls) : null;
const server = made ? createSecureServer({ key: made.key, cert: made.cert }, handle) : createServer(handle);
const port = await listen(server, asked.port);
const issuer = `${made ? 'https' : 'http'}://127.0.0.1:${port}`;

const state = { issuer, keys: await KeyRing.create(), clients: await createClients(), faults, counts };
const storage = createStorage();
state.rebuild = () => {
  state.provider = createProvider({ ...state, storage });
  serve = state.provider.callback();
};
state.rebuild();

const controlPort = await listen(createControl(state), asked['control-port']);
ready({ port, control_port: controlPort, issuer, control: `http://127.0.0.1:${controlPort}`, ca: made?.ca ?? null });
