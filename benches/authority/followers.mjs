// Sidecars that only follow, as sockets: each joins by a token that an administrator made and asks `/v1/changes` for ever.
// As a worker it is the company of a sidecar that is measured.

import { createHash, randomUUID } from 'node:crypto';
import http from 'node:http';
import { parentPort, workerData } from 'node:worker_threads';

import { ask, now, pause, Signer } from './authority.mjs';

const GOOD_FOR = 30; // seconds that one assertion is shown, of the sixty that it may be

/** A sidecar that joins by `token`, from a place of its own; what it shows itself by. */
async function joined({ port, issuer }, token, number) {
  const key = new Signer('', 'EdDSA');
  const digest = (text) => createHash('sha256').update(text).digest('base64url');
  key.header.kid = key.jwk.kid = digest(JSON.stringify({ crv: key.jwk.crv, kty: key.jwk.kty, x: key.jwk.x }));
  const signed = (type, name, more) => {
    const at = now();
    return key.jwt({ iss: name, sub: name, aud: issuer, jti: randomUUID(), iat: at, exp: at + 60, ...more }, type);
  };
  const itself = `urn:ietf:params:oauth:jwk-thumbprint:sha-256:${key.jwk.kid}`;
  const proof = signed('countersign-enrolment+jwt', itself, { evidence: digest(token) });
  const body = JSON.stringify({ token, name: `follower-${number}`, jwk: key.jwk, proof });
  const from = { localAddress: `127.1.${number >> 8}.${number & 255}` };
  const answer = await ask(port, 'POST', '/v1/sidecars/enrol', { 'content-type': 'application/json' }, body, from);
  if (answer.status !== 201) throw new Error(`${answer.status}: ${answer.text}`);
  const name = `${issuer}/sidecars/${JSON.parse(answer.text).id}`;
  let [shown, until] = ['', 0];
  return () => {
    if (now() >= until) [shown, until] = [signed('countersign-sidecar+jwt', name, {}), now() + GOOD_FOR];
    return shown;
  };
}

/** As many followers as there are tokens. */
export class Followers {
  static async join(authority, tokens) {
    const followers = new Followers();
    followers.authority = authority;
    followers.sidecars = [];
    for (const [number, token] of tokens.entries()) followers.sidecars.push(await joined(authority, token, number));
    return followers;
  }

  /** Follows until it is told to stop. */
  begin() {
    this.agent = new http.Agent({ keepAlive: true, maxSockets: Infinity });
    [this.told, this.target, this.over, this.head] = [[], Infinity, false, 0];
    this.all = Promise.all(this.sidecars.map((assertion) => this.lane(assertion)));
  }

  async lane(assertion) {
    for (let after = 0; !this.over; ) {
      const headers = { authorization: `Bearer ${assertion()}` };
      const path = `/v1/changes?after=${after}&wait=2`;
      const answer = await ask(this.authority.port, 'GET', path, headers, undefined, { agent: this.agent });
      if (answer.status !== 200) throw new Error(`${answer.status}: ${answer.text}`);
      const news = JSON.parse(answer.text);
      if (after < this.target && news.head >= this.target) this.told.push(performance.now());
      after = news.head;
      this.head = Math.max(this.head, after);
    }
  }

  /** Lets time go by. What goes wrong meanwhile is not overheard. */
  meanwhile(milliseconds) {
    return Promise.race([this.all, pause(milliseconds)]);
  }

  async end() {
    this.over = true;
    await this.all;
    this.agent.destroy();
  }
}

if (parentPort) {
  const followers = await Followers.join(workerData, workerData.tokens);
  followers.begin();
  followers.all.catch((error) => { throw error; });
  await followers.meanwhile(3000);
  parentPort.once('message', async () => { await followers.end(); parentPort.postMessage('ended'); });
  parentPort.postMessage('following');
}
