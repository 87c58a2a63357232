// The two grants that this provider adds to those of the library: a user's token without a browser, and RFC 8693 token
// exchange, by which an authenticated agent gets a token that names the user and, in `act`, itself. Both are issued
// through the library's own AccessToken model, in its own JWT format (RFC 9068), with its own keys.

import { createLocalJWKSet, jwtVerify } from 'jose';
import { errors } from 'oidc-provider';

import { ACCOUNTS, DEFAULT_AUDIENCE, resourceServerInfo } from './registry.mjs';
import { narrowDetails, narrowScope } from './narrowing.mjs';

export const USER_GRANT = 'urn:example:test:user';
export const EXCHANGE_GRANT = 'urn:ietf:params:oauth:grant-type:token-exchange';
const ACCESS_TOKEN_TYPE = 'urn:ietf:params:oauth:token-type:access_token';
const USUAL_LIFETIME = 300;
const LONGEST_DELEGATION = 300;
const LONGEST_USER_TOKEN = 3600;

const FROM_THE_USER = ['groups', 'roles', 'tenant', 'acr', 'auth_time', 'sid'];
const OF_THE_TASK = ['run_id', 'task_id', 'grant_id', 'stage', 'use_case', 'sensitivity', 'user_presence'];
const COMMON = ['audience', 'resource', 'scope', 'lifetime', 'signing_alg', 'dpop_jkt'];

export const USER_PARAMETERS = [...COMMON, 'username', 'acr'];
export const EXCHANGE_PARAMETERS = [
  ...COMMON, ...OF_THE_TASK, 'subject_token', 'subject_token_type', 'actor_token', 'requested_token_type',
  'authorization_details', 'requested_actor', 'delegation_chain', 'instance',
];

const now = () => Math.floor(Date.now() / 1000);

function pick(source, names) {
  return Object.fromEntries(names.filter((name) => source[name] !== undefined).map((name) => [name, source[name]]));
}

function lifetime(asked, longest) {
  const seconds = Number(asked ?? USUAL_LIFETIME);
  if (!Number.isInteger(seconds) || seconds < 1) throw new errors.InvalidRequest('lifetime is a number of seconds');
  return Math.min(seconds, longest);
}

// An access token of the library, with the claims that the library does not know laid beside it for extraTokenClaims.
// `extra` may still be added to until the token is saved.
function accessToken(ctx, { keys, claimsOf, extra }, { accountId, scope, details, expiresIn }) {
  const { provider, client, params } = ctx.oidc;
  const audience = params.audience ?? params.resource ?? DEFAULT_AUDIENCE;
  const resourceServer = new provider.ResourceServer(audience, resourceServerInfo(keys, audience, params.signing_alg));
  const token = new provider.AccessToken({ client, accountId, scope, rar: details, expiresIn, resourceServer });
  token.jti = token.generateTokenId();
  if (params.dpop_jkt !== undefined) token.setThumbprint('jkt', params.dpop_jkt);
  claimsOf.set(token, extra);
  return token;
}

async function answer(ctx, token) {
  ctx.body = {
    access_token: await token.save(),
    issued_token_type: ACCESS_TOKEN_TYPE,
    token_type: token.tokenType,
    expires_in: token.expiration,
    scope: token.scope || undefined,
    authorization_details: token.rar,
  };
}

export function userGrant(keys, claimsOf) {
  return async (ctx) => {
    const { params } = ctx.oidc;
    const account = Object.hasOwn(ACCOUNTS, params.username ?? '') ? ACCOUNTS[params.username] : undefined;
    if (account === undefined) throw new errors.InvalidGrant('no such user');
    const extra = {
      ...pick(account, ['groups', 'roles', 'tenant', 'email']),
      acr: params.acr ?? 'urn:example:acr:password', auth_time: now(), sid: crypto.randomUUID(),
    };
    await answer(ctx, accessToken(ctx, { keys, claimsOf, extra }, {
      accountId: params.username,
      scope: narrowScope(account.scope, params.scope),
      expiresIn: lifetime(params.lifetime, LONGEST_USER_TOKEN),
    }));
  };
}

async function readSubjectToken(ctx, keys) {
  const { provider, params } = ctx.oidc;
  if (params.subject_token_type !== ACCESS_TOKEN_TYPE) throw new errors.InvalidRequest('subject_token_type is an access token');
  if (params.actor_token !== undefined) throw new errors.InvalidRequest('the actor is the authenticated client');
  try {
    const published = keys.published.map(({ kty, crv, x, y, n, e, kid, alg }) => ({ kty, crv, x, y, n, e, kid, alg }));
    const { payload } = await jwtVerify(params.subject_token ?? '', createLocalJWKSet({ keys: published }), {
      issuer: provider.issuer, typ: 'at+jwt',
    });
    return payload;
  } catch (cause) {
    throw new errors.InvalidGrant('subject_token is not a valid access token of this provider', { cause });
  }
}

function actors(act) {
  return act === undefined ? [] : [act.sub, ...actors(act.act)];
}

// Holding a delegated token is not enough to extend it: its holder must have named the next actor.
function checkActor(subject, actor) {
  if (subject.sub === subject.client_id && subject.act === undefined) throw new errors.InvalidGrant('no user in subject_token');
  if (subject.act !== undefined && subject.may_act?.sub !== actor) throw new errors.InvalidGrant('subject_token names another actor');
  if (actors(subject.act).includes(actor)) throw new errors.InvalidGrant('the actor is already in the chain');
}

function chain(issuer, subject, last) {
  const user = {
    iss: issuer, sub: subject.sub, sub_profile: 'user', jti: subject.jti, scope: subject.scope,
    authorization_details: subject.authorization_details,
  };
  return [...(subject.delegation_chain ?? [user]), { iss: issuer, sub_profile: 'ai_agent', ...last }];
}

export function exchangeGrant(keys, claimsOf) {
  return async (ctx) => {
    const { provider, client, params } = ctx.oidc;
    const { issuer } = provider;
    const actor = client.clientId;
    const subject = await readSubjectToken(ctx, keys);
    checkActor(subject, actor);

    const scope = narrowScope(subject.scope, params.scope);
    const asked = params.authorization_details === undefined ? undefined : JSON.parse(params.authorization_details);
    const details = narrowDetails(subject.authorization_details, asked, scope);
    if (scope === '' || details?.length === 0) throw new errors.InvalidScope('nothing is left of what was asked for');

    const first = subject.act === undefined;
    const extra = {
      ...pick(subject, FROM_THE_USER),
      ...pick(first ? params : subject, OF_THE_TASK),
      act: { iss: issuer, sub: actor, sub_profile: 'ai_agent', ...(first ? {} : { act: subject.act }) },
    };
    if (params.requested_actor !== undefined) extra.may_act = { iss: issuer, sub: params.requested_actor };
    const token = accessToken(ctx, { keys, claimsOf, extra }, {
      accountId: subject.sub, scope, details,
      expiresIn: Math.min(lifetime(params.lifetime, LONGEST_DELEGATION), subject.exp - now()),
    });
    if (params.delegation_chain === 'true') {
      extra.delegation_chain = chain(issuer, subject, {
        sub: actor, jti: token.jti, scope, authorization_details: details, instance: params.instance, grant: extra.grant_id,
      });
    }
    await answer(ctx, token);
  };
}
