// A tool that verifies Transaction Tokens with jose, as docs/tools-identity.md has it.
//
//   node verify.mjs < ASKED
//
// ASKED is {"authority": URL, "tool": name, "tokens": {name: compact}}. On stdout comes one JSON object: by the same
// names, the claims of each token that is good, or {"refused": why}. jose is that of the OpenID provider beside this.

import { readFileSync } from 'node:fs';

import { createRemoteJWKSet, jwtVerify } from '../openid/node_modules/jose/dist/webapi/index.js';

const asked = JSON.parse(readFileSync(0, 'utf8'));
const keys = createRemoteJWKSet(new URL(`${asked.authority}/jwks/tools/${asked.tool}.json`));

async function verify(token) {
  const { payload, protectedHeader } = await jwtVerify(token, keys, {
    typ: 'txntoken+jwt',
    audience: asked.tool,
    algorithms: ['EdDSA', 'ES256'],
    maxTokenAge: 60,
    clockTolerance: 5,
    requiredClaims: ['iss', 'sub', 'exp', 'txn', 'tenant', 'tctx'],
  });
  const key = keys.jwks().keys.find(({ kid }) => kid === protectedHeader.kid);
  if (key?.iss !== payload.iss) throw new Error('the key is not that of `iss`');
  return payload;
}

const seen = {};
for (const [name, token] of Object.entries(asked.tokens)) {
  seen[name] = await verify(token).catch((error) => ({ refused: `${error.code ?? ''} ${error.message}` }));
}
console.log(JSON.stringify(seen));
