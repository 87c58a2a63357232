// The provider's signing keys: which are published, which signs now, and raw signing for tokens that no honest
// library would make.

import { createHmac, createPrivateKey, createPublicKey, randomUUID, sign } from 'node:crypto';

import { exportJWK, generateKeyPair } from 'jose';

export const ALGORITHMS = ['ES256', 'EdDSA', 'RS256'];

async function newKey(alg) {
  if (!ALGORITHMS.includes(alg)) throw new TypeError(`alg is one of ${ALGORITHMS.join(', ')}`);
  const { privateKey } = await generateKeyPair(alg, { extractable: true });
  return { ...(await exportJWK(privateKey)), kid: `${alg.toLowerCase()}-${randomUUID().slice(0, 8)}`, alg, use: 'sig' };
}

export class KeyRing {
  published = [];

  removed = [];

  #unpublished = new Map();

  static async create() {
    const ring = new KeyRing();
    ring.published = await Promise.all(ALGORITHMS.map(newKey));
    return ring;
  }

  current(alg) {
    return this.published.find((key) => key.alg === alg);
  }

  // A key that the JWKS never showed: what a forger has.
  async unpublished(alg) {
    if (!this.#unpublished.has(alg)) this.#unpublished.set(alg, await newKey(alg));
    return this.#unpublished.get(alg);
  }

  async rotate(alg, removeOld) {
    const added = await newKey(alg);
    const leaving = removeOld ? this.published.filter((key) => key.alg === alg) : [];
    this.removed = [...leaving, ...this.removed];
    this.published = [added, ...this.published.filter((key) => !leaving.includes(key))];
    return added;
  }

  async find(name, alg) {
    if (name === 'current') return this.current(alg);
    if (name === 'unpublished') return this.unpublished(alg);
    if (name === 'removed') return this.removed.find((key) => key.alg === alg);
    return [...this.published, ...this.removed].find((key) => key.kid === name);
  }
}

export function publicPem(jwk) {
  return createPublicKey({ key: jwk, format: 'jwk' }).export({ type: 'spki', format: 'pem' });
}

const encode = (part) => Buffer.from(part).toString('base64url');

// Signs exactly these bytes as a compact JWS. `jwk` null leaves the signature empty.
export function signRaw(header, payload, jwk) {
  const input = `${encode(header)}.${encode(payload)}`;
  if (jwk === null) return `${input}.`;
  const key = createPrivateKey({ key: jwk, format: 'jwk' });
  const signature = jwk.alg === 'EdDSA'
    ? sign(null, Buffer.from(input), key)
    : sign('sha256', Buffer.from(input), { key, dsaEncoding: 'ieee-p1363' });
  return `${input}.${encode(signature)}`;
}

// The algorithm-confusion attack: the public key, which everybody has, used as an HMAC secret.
export function signWithPublicKeyAsSecret(header, payload, jwk) {
  const input = `${encode(header)}.${encode(payload)}`;
  return `${input}.${createHmac('sha256', publicPem(jwk)).update(input).digest('base64url')}`;
}
