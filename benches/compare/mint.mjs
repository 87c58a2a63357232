// Tokens for the comparison, as the authority issues them: ES256, alice through support-v2, with her whole chain.
//
//   node mint.mjs keys DIR                 an ES256 key: DIR/key.json, DIR/keys.json (JWK set), DIR/key.pem (public)
//   node mint.mjs tokens DIR COUNT FILE    COUNT tokens that differ, one a line, good for four minutes

import { createPrivateKey, createPublicKey, generateKeyPairSync, randomUUID, sign } from 'node:crypto';
import { closeSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';

export const AUTHORITY = 'https://countersign.example';
export const PEOPLE = 'https://sso.example/realms/acme';
const LIFETIME = 240; // seconds; the sidecar takes five minutes at most

const [command, directory, count, file] = process.argv.slice(2);
if (command === 'keys') keys();
else if (command === 'tokens') tokens(Number(count));
else process.exit(2);

function keys() {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const options = { mode: 0o600 };
  writeFileSync(`${directory}/key.json`, JSON.stringify(privateKey.export({ format: 'jwk' })), options);
  const set = { keys: [{ ...publicKey.export({ format: 'jwk' }), kid: 'compare', use: 'sig', alg: 'ES256' }] };
  writeFileSync(`${directory}/keys.json`, JSON.stringify(set), options);
  writeFileSync(`${directory}/key.pem`, publicKey.export({ format: 'pem', type: 'spki' }), options);
}

function tokens(wanted) {
  const key = createPrivateKey({ key: JSON.parse(readFileSync(`${directory}/key.json`)), format: 'jwk' });
  const header = encoded({ typ: 'at+jwt', alg: 'ES256', kid: 'compare' });
  const out = openSync(file, 'w', 0o600);
  const shared = claims();
  let lines = [];
  for (let index = 0; index < wanted; index++) {
    const jti = randomUUID();
    shared.jti = jti;
    shared.delegation_chain[1].jti = jti;
    const signed = `${header}.${encoded(shared)}`;
    const signature = sign('sha256', Buffer.from(signed), { key, dsaEncoding: 'ieee-p1363' });
    lines.push(`${signed}.${signature.toString('base64url')}\n`);
    if (lines.length === 1000) {
      writeSync(out, lines.join(''));
      lines = [];
    }
  }
  writeSync(out, lines.join(''));
  closeSync(out);
}

function encoded(value) {
  return Buffer.from(JSON.stringify(value)).toString('base64url');
}

function claims() {
  const now = Math.floor(Date.now() / 1000);
  const element = { type: 'urn:countersign:action', locations: ['orders'], identifier: '**' };
  const held = {
    grant: 'alice-support',
    scope: 'orders.read refunds.create',
    authorization_details: [
      { ...element, actions: ['orders.read'], limits: {}, where: {} },
      {
        ...element,
        actions: ['refunds.create'],
        limits: { amount: { max: '50.00', currency: 'USD' } },
        where: { 'order.placed_by': '$user' },
      },
    ],
  };
  const agent = { iss: AUTHORITY, sub: 'support-v2', sub_profile: 'ai_agent' };
  return {
    iss: AUTHORITY,
    sub: 'alice',
    aud: 'urn:example:countersign:support',
    iat: now,
    exp: now + LIFETIME,
    jti: '',
    client_id: 'support-v2',
    sub_profile: 'user',
    act: agent,
    delegation_chain: [
      { iss: PEOPLE, sub: 'alice', sub_profile: 'user', jti: randomUUID(), ...held },
      { ...agent, jti: '', ...held },
    ],
    scope: held.scope,
    authorization_details: held.authorization_details,
    groups: ['customers'],
    acr: 'urn:example:password',
    auth_time: now - 60,
    sid: 'session-of-alice',
    tenant: 'acme',
    grant_id: 'alice-support',
    task_id: 'ticket-12847',
    run_id: randomUUID(),
    use_case: 'customer_support',
    initiated_by: 'alice',
    stage: 'supervised',
    sensitivity: 'low',
    user_presence: 'present',
  };
}
