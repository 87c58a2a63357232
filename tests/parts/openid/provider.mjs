// The provider itself: the `oidc-provider` library, configured for what the tests need and nothing else.

import { randomBytes } from 'node:crypto';

import Provider from 'oidc-provider';

import {
  EXCHANGE_GRANT, EXCHANGE_PARAMETERS, USER_GRANT, USER_PARAMETERS, exchangeGrant, userGrant,
} from './grants.mjs';
import { ACCOUNTS, DEFAULT_AUDIENCE, resourceServerInfo } from './registry.mjs';

// What outlives a key rotation: client assertions seen once, above all.
export function createStorage() {
  const items = new Map();
  return (model) => ({
    upsert: async (id, payload) => { items.set(`${model}:${id}`, payload); },
    find: async (id) => items.get(`${model}:${id}`),
    destroy: async (id) => { items.delete(`${model}:${id}`); },
    consume: async (id) => { items.get(`${model}:${id}`).consumed = Math.floor(Date.now() / 1000); },
    findByUid: async () => undefined,
    findByUserCode: async () => undefined,
    revokeByGrantId: async () => {},
  });
}

function findAccount(ctx, id) {
  if (!Object.hasOwn(ACCOUNTS, id)) return undefined;
  return { accountId: id, claims: async () => ({ sub: id, ...ACCOUNTS[id], scope: undefined }) };
}

const asIs = (ctx, token, source) => source?.rar;

const COOKIE_KEYS = [randomBytes(32).toString('hex')];

// The library fixes its keys at construction, so a rotation makes a new provider over the same storage and clients,
// as a rolling restart of a real one would.
export function createProvider({ issuer, keys, clients, storage }) {
  const claimsOf = new WeakMap();
  const provider = new Provider(issuer, {
    adapter: storage,
    clients: Object.values(clients).map(({ metadata }) => metadata),
    jwks: { keys: keys.published },
    findAccount,
    cookies: { keys: COOKIE_KEYS },
    extraTokenClaims: (ctx, token) => claimsOf.get(token),
    ttl: { AccessToken: 300, ClientCredentials: 300, Grant: 3600, Session: 3600 },
    clientAuthMethods: ['client_secret_basic', 'private_key_jwt'],
    // The library would refuse to tell anybody on this machine of a logout.
    fetch: (url, { dispatcher, ...rest }) => fetch(url, rest),
    features: {
      backchannelLogout: { enabled: true },
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      dPoP: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: (ctx) => ctx.oidc.params?.audience ?? DEFAULT_AUDIENCE,
        getResourceServerInfo: (ctx, audience) => resourceServerInfo(keys, audience),
        useGrantedResource: () => true,
      },
      richAuthorizationRequests: {
        enabled: true,
        types: { 'urn:countersign:action': { validate: () => {} } },
        authorizationDetailsForGrantSource: asIs,
        authorizationDetailsForAccessToken: asIs,
        authorizationDetailsForIntrospection: asIs,
      },
    },
  });
  provider.registerGrantType(USER_GRANT, userGrant(keys, claimsOf), USER_PARAMETERS);
  provider.registerGrantType(EXCHANGE_GRANT, exchangeGrant(keys, claimsOf), EXCHANGE_PARAMETERS);
  provider.on('grant.error', (ctx, error) => console.error(error.message, error.error_detail ?? error.error_description));
  provider.on('server_error', (ctx, error) => console.error(error));
  return provider;
}
