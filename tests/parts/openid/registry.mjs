// Who this provider knows: users with their groups, clients with their credentials, and any API as an audience.

import { randomBytes } from 'node:crypto';

import { exportJWK, generateKeyPair } from 'jose';

import { ALGORITHMS } from './keys.mjs';

export const DEFAULT_AUDIENCE = 'urn:example:countersign:support';

const EVERYTHING = 'orders.read orders.list customers.read refunds.create refunds.draft';

export const ACCOUNTS = {
  alice: { groups: ['support', 'refunds'], roles: ['agent'], tenant: 'acme', email: 'alice@acme.example', scope: EVERYTHING },
  bob: { groups: ['support'], roles: ['agent'], tenant: 'acme', email: 'bob@acme.example', scope: EVERYTHING },
  carol: { groups: ['support', 'refunds'], roles: ['agent'], tenant: 'globex', email: 'carol@globex.example', scope: EVERYTHING },
  dave: { groups: [], roles: [], tenant: 'acme', email: 'dave@acme.example', scope: 'orders.read' },
};

const ROLES = {
  portal: { method: 'client_secret_basic', may: ['urn:example:test:user'] },
  'support-v1': { method: 'client_secret_basic', may: ['exchange', 'client_credentials'] },
  'support-v2': { method: 'private_key_jwt', may: ['exchange', 'client_credentials'] },
  'refund-helper': { method: 'private_key_jwt', may: ['exchange', 'client_credentials'] },
  'nightly-report': { method: 'client_secret_basic', may: ['client_credentials'] },
};

const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';

// Returns, by client id, the metadata that the provider registers and the credential that the client keeps.
export async function createClients() {
  const clients = {};
  for (const [id, { method, may }] of Object.entries(ROLES)) {
    const metadata = {
      client_id: id, token_endpoint_auth_method: method, redirect_uris: [], response_types: [],
      authorization_details_types: ['urn:countersign:action'],
      grant_types: may.map((name) => (name === 'exchange' ? EXCHANGE : name)),
    };
    if (method === 'private_key_jwt') {
      const { publicKey, privateKey } = await generateKeyPair('ES256', { extractable: true });
      const names = { kid: `${id}-1`, alg: 'ES256', use: 'sig' };
      const jwk = { ...(await exportJWK(privateKey)), ...names };
      metadata.token_endpoint_auth_signing_alg = 'ES256';
      metadata.jwks = { keys: [{ ...(await exportJWK(publicKey)), ...names }] };
      clients[id] = { metadata, private_jwk: jwk };
    } else {
      metadata.client_secret = randomBytes(32).toString('base64url');
      clients[id] = { metadata, secret: metadata.client_secret };
    }
  }
  return clients;
}

export function resourceServerInfo(keys, audience, alg = 'ES256') {
  if (!ALGORITHMS.includes(alg)) throw new TypeError(`signing_alg is one of ${ALGORITHMS.join(', ')}`);
  return {
    audience, scope: EVERYTHING, accessTokenFormat: 'jwt', accessTokenTTL: 300,
    jwt: { sign: { alg, kid: keys.current(alg).kid } },
  };
}
