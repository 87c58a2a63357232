// An authority to measure: the real process with its configuration, its database and the people, agents and keys around it.

import { spawn } from 'node:child_process';
import { generateKeyPairSync, randomUUID, sign } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

export const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '../..');

export const PEOPLE = 'https://sso.example/realms/acme';
export const AUDIENCE = 'urn:example:countersign:support';
const MANAGEMENT = 'urn:example:countersign:management';
const ASSERTION = 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer';
const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
const ACCESS_TOKEN = 'urn:ietf:params:oauth:token-type:access_token';
const TICKS = 100; // of /proc, in a second
const AGENTS = 8; // so that none has more assertions under way than one may

const encoded = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
export const now = () => Math.floor(Date.now() / 1000);

/** A key of `kind` (`ES256`, `EdDSA`) that signs JWTs. */
export class Signer {
  constructor(kid, kind = 'ES256') {
    const made = kind === 'ES256' ? generateKeyPairSync('ec', { namedCurve: 'P-256' }) : generateKeyPairSync('ed25519');
    this.key = made.privateKey;
    this.header = { alg: kind, kid };
    this.jwk = { ...made.publicKey.export({ format: 'jwk' }), kid, use: 'sig', alg: kind };
  }

  jwt(claims, type) {
    const signed = `${encoded(type ? { ...this.header, typ: type } : this.header)}.${encoded(claims)}`;
    const how = this.header.alg === 'ES256' ? { key: this.key, dsaEncoding: 'ieee-p1363' } : this.key;
    return `${signed}.${sign(this.header.alg === 'ES256' ? 'sha256' : null, Buffer.from(signed), how).toString('base64url')}`;
  }
}

const children = new Set();
process.once('exit', () => children.forEach((child) => child.kill('SIGKILL')));

/** `child`, which does not outlive this program, however that ends. */
export function owned(child) {
  children.add(child);
  child.once('exit', () => children.delete(child));
  return child;
}

export async function freePort() {
  const server = net.createServer();
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  const { port } = server.address();
  await new Promise((done) => server.close(done));
  return port;
}

/** One request: its status, its text, and the milliseconds that it took. */
export function ask(port, method, path, headers = {}, body, how = {}) {
  return new Promise((done, failed) => {
    const began = process.hrtime.bigint();
    const request = http.request({ port, host: '127.0.0.1', method, path, headers, ...how }, (response) => {
      const parts = [];
      response.on('data', (part) => parts.push(part));
      response.on('end', () => {
        const took = Number(process.hrtime.bigint() - began) / 1e6;
        done({ status: response.statusCode, text: Buffer.concat(parts).toString(), took });
      });
      response.on('error', failed);
    });
    request.on('error', failed);
    request.end(body);
  });
}

/** An authority with alice's grant and as many tasks under it. */
export class Authority {
  static async start({ binary, algorithm = 'ES256', postgres }) {
    const authority = new Authority();
    authority.binary = binary;
    authority.directory = mkdtempSync(join(tmpdir(), 'countersign-authority-'));
    authority.port = await freePort();
    authority.issuer = `http://127.0.0.1:${authority.port}`;
    authority.people = new Signer('people', algorithm);
    authority.agents = Array.from({ length: AGENTS }, (_, number) => new Signer(`support-${number}`, algorithm));
    const write = (name, value) => {
      const text = typeof value === 'string' ? value : JSON.stringify(value);
      writeFileSync(join(authority.directory, name), text, { mode: 0o600 });
    };
    write('people.json', { keys: [authority.people.jwk] });
    write('store.yaml', JSON.stringify(declared(authority.agents, 0, AGENTS)));
    if (postgres) write('url', postgres.url);
    write('authority.yaml', {
      authority: {
        issuer: authority.issuer,
        keys: { dir: 'keys', algorithm },
        sidecars: [{ audience: AUDIENCE }],
        subject_audiences: [AUDIENCE],
        management: {
          audience: MANAGEMENT,
          clients: ['portal'],
          administrators: { groups: ['platform'] },
          requests_per_second: 100000,
        },
        store: 'store.yaml',
        ...(postgres ? { database: { postgres: { url: { file: 'url' } } } } : {}),
      },
      listen: { tcp: `127.0.0.1:${authority.port}` },
      issuers: [
        {
          issuer: PEOPLE,
          role: 'subject',
          tenants: ['acme'],
          claims: { tenant: 'tenant' },
          keys: { file: 'people.json' },
          entitlements: { from: 'groups', map: { support: ['orders.read', 'refunds.create'] } },
        },
      ],
      ledger: { dir: 'ledger' },
    });
    await authority.begin();
    return authority;
  }

  async begin() {
    const command = ['authority', '--config', join(this.directory, 'authority.yaml')];
    this.process = owned(spawn(this.binary, command, { stdio: ['ignore', 'ignore', 'pipe'] }));
    let [said, ended] = ['', false];
    this.process.stderr.on('data', (data) => (said = (said + data).slice(-4000)));
    this.process.once('exit', () => (ended = true));
    for (const began = Date.now(); ; await pause(50)) {
      if (ended || Date.now() - began > 300_000) throw new Error(`no authority: ${said}`);
      if ((await this.ask('GET', '/readyz').catch(() => ({}))).status === 200) return;
    }
  }

  /** Ends it and starts it anew, so that what it read to begin with is not counted. */
  async restart(declarations = {}) {
    await this.end();
    writeFileSync(join(this.directory, 'store.yaml'), JSON.stringify(declarations));
    await this.begin();
  }

  ask(method, path, headers, body, how) {
    return ask(this.port, method, path, headers, body, how);
  }

  /**
   * The form of an exchange of alice's token by the next agent, with an assertion of its own; without her token, of a
   * token anew for the task that goes on.
   */
  form(subject, task = (this.asked = ((this.asked ?? 0) + 1) % AGENTS)) {
    const at = now();
    const number = task % AGENTS;
    const name = `support-${number}`;
    const claims = { iss: name, sub: name, aud: this.issuer, jti: randomUUID(), iat: at, exp: at + 60 };
    const exchanged = { grant_type: EXCHANGE, subject_token: subject, subject_token_type: ACCESS_TOKEN };
    return new URLSearchParams({
      ...(subject ? exchanged : { grant_type: 'client_credentials' }),
      client_assertion_type: ASSERTION,
      client_assertion: this.agents[number].jwt(claims),
      task_id: `task-${task}`,
      audience: AUDIENCE,
    }).toString();
  }

  user(more = {}) {
    const at = now();
    const claims = { iss: PEOPLE, sub: 'alice', aud: AUDIENCE, jti: randomUUID(), iat: at, exp: at + 300, tenant: 'acme' };
    return this.people.jwt({ ...claims, groups: ['support'], client_id: 'web', ...more }, 'at+jwt');
  }

  manage(path, body) {
    const token = this.user({
      aud: MANAGEMENT, azp: 'portal', client_id: 'portal', groups: ['platform'], auth_time: now(), sub: 'dana',
    });
    const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' };
    return this.ask('POST', path, headers, JSON.stringify(body));
  }

  /** The token that a sidecar joins by. */
  async invite(name) {
    const invited = await this.manage('/v1/sidecars', { name, tenants: ['acme'] });
    if (invited.status !== 201) throw new Error(`${invited.status}: ${invited.text}`);
    return JSON.parse(invited.text).token;
  }

  /** Seconds of CPU so far. */
  cpu() {
    const fields = readFileSync(`/proc/${this.process.pid}/stat`, 'utf8').split(') ')[1].split(' ');
    return (Number(fields[11]) + Number(fields[12])) / TICKS;
  }

  /** Resident memory in MiB. */
  memory() {
    return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${this.process.pid}/status`, 'utf8'))[1]) / 1024;
  }

  async end() {
    const ended = new Promise((done) => this.process.once('exit', done));
    this.process.kill('SIGTERM');
    await ended;
  }

  async stop() {
    await this.end();
    rmSync(this.directory, { recursive: true });
  }
}

/** Agents, alice's grants to them, and her tasks from `first` to before `end`. */
export function declared(agents, first, end) {
  const element = { type: 'urn:countersign:action', locations: ['orders'], identifier: 'orders/*' };
  const expires = '2999-01-01T00:00:00Z';
  return {
    agents: agents.map(({ jwk }, number) => ({
      id: `support-${number}`, owner: 'ops@acme.example', actions: ['orders.read', 'refunds.create'], tenants: ['acme'],
      credentials: [{ jwks: { keys: [jwk] } }],
    })),
    grants: agents.map((_, number) => ({
      id: `alice-${number}`, user: { id: 'alice', issuer: PEOPLE }, agent: { id: `support-${number}` }, stage: 'supervised',
      expires, redelegate: 1,
      authorization_details: [
        { ...element, actions: ['orders.read'] },
        {
          ...element, actions: ['refunds.create'], limits: { amount: { max: '50.00', currency: 'USD' } },
          where: { 'order.placed_by': '$user' },
        },
      ],
    })),
    tasks: Array.from({ length: end - first }, (_, place) => first + place).map((number) => ({
      id: `task-${number}`, grant: `alice-${number % agents.length}`, run: `run-${number}`, tenant: 'acme',
      use_case: 'support', initiated_by: 'alice', sensitivity: 'low', stage: 'supervised', expires, status: 'active',
    })),
  };
}

export const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
export const share = (sorted, part) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))];

/** A real PostgreSQL server, gone when its input ends. */
export async function startPostgres() {
  const script = readFileSync(join(ROOT, 'tests/parts/postgres/server.sh'), 'utf8');
  const command = process.getuid() === 0 ? ['setpriv', '--reuid=postgres', '--regid=postgres', '--init-groups', 'sh'] : ['sh'];
  const child = spawn(command[0], [...command.slice(1), '-c', script], { stdio: ['pipe', 'pipe', 'ignore'] });
  const ready = await new Promise((done, failed) => {
    createInterface({ input: child.stdout }).once('line', (line) => done(JSON.parse(line)));
    child.once('error', failed);
  });
  return {
    url: `postgres://countersign@${ready.socket.replaceAll('/', '%2F')}/postgres`,
    stop: () => new Promise((done) => { child.once('exit', done); child.stdin.end(); }),
  };
}
