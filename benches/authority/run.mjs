#!/usr/bin/env node
// What the authority costs: exchanges per second of one core and how long they take, for both databases and both
// algorithms (of users' tokens, agents' assertions and what is issued); how much memory followers and live tasks take.
//
//   node benches/authority/run.mjs [--binary target/dist/countersign] [--seconds 10] [--connections 32]
//                                  [--tasks 100000] [--followers 1000] [--only exchanges|tasks|followers] [--json]
//
// CPU is what the authority's process used, from /proc, divided by the exchanges it answered: what this machine's other
// work changes least. One core's worth of exchanges is its inverse; the database server's own CPU is not in it.
// Everything is on loopback, and ends by itself.

import { spawn } from 'node:child_process';
import { createHash, generateKeyPairSync, randomUUID, sign } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
const PEOPLE = 'https://sso.example/realms/acme';
const AUDIENCE = 'urn:example:countersign:support';
const MANAGEMENT = 'urn:example:countersign:management';
const ASSERTION = 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer';
const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
const ACCESS_TOKEN = 'urn:ietf:params:oauth:token-type:access_token';
const TICKS = 100; // of /proc, in a second
const AT_ONCE = 10_000; // tasks in one file of declarations, which has a bound
const AGENTS = 8; // so that none has more assertions under way than one may


const { values: options } = parseArgs({
  options: {
    binary: { type: 'string', default: join(ROOT, 'target/dist/countersign') },
    seconds: { type: 'string', default: '10' },
    connections: { type: 'string', default: '32' },
    tasks: { type: 'string', default: '100000' },
    followers: { type: 'string', default: '1000' },
    only: { type: 'string' },
    json: { type: 'boolean', default: false },
  },
});
const seconds = Number(options.seconds);
const connections = Number(options.connections);

const encoded = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
const now = () => Math.floor(Date.now() / 1000);

/** A key of `kind` (`ES256`, `EdDSA`) that signs JWTs. */
class Signer {
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

async function freePort() {
  const server = net.createServer();
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  const { port } = server.address();
  await new Promise((done) => server.close(done));
  return port;
}

/** An authority with alice's grant and as many tasks under it. */
class Authority {
  static async start({ algorithm = 'ES256', postgres }) {
    const authority = new Authority();
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
    this.process = spawn(options.binary, ['authority', '--config', join(this.directory, 'authority.yaml')], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
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

  ask(method, path, headers = {}, body, how = {}) {
    return new Promise((done, failed) => {
      const began = process.hrtime.bigint();
      const request = http.request({ port: this.port, host: '127.0.0.1', method, path, headers, ...how }, (response) => {
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

  /** The form of an exchange of alice's token by the next agent, with an assertion of its own. */
  form(subject) {
    const at = now();
    const number = (this.asked = ((this.asked ?? 0) + 1) % AGENTS);
    const name = `support-${number}`;
    const claims = { iss: name, sub: name, aud: this.issuer, jti: randomUUID(), iat: at, exp: at + 60 };
    return new URLSearchParams({
      grant_type: EXCHANGE,
      subject_token: subject,
      subject_token_type: ACCESS_TOKEN,
      client_assertion_type: ASSERTION,
      client_assertion: this.agents[number].jwt(claims),
      task_id: `task-${number}`,
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
function declared(agents, first, end) {
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

const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
const share = (sorted, part) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))];

/** As many exchanges as go in the time, over a few connections. */
async function exchanges(authority) {
  const subject = authority.user();
  const agent = new http.Agent({ keepAlive: true, maxSockets: connections });
  const headers = { 'content-type': 'application/x-www-form-urlencoded' };
  const took = [];
  const lane = async (until) => {
    while (Date.now() < until) {
      const answer = await authority.ask('POST', '/oauth2/token', headers, authority.form(subject), { agent });
      if (answer.status !== 200) throw new Error(`${answer.status}: ${answer.text}`);
      took.push(answer.took);
    }
  };
  const all = (until) => Promise.all(Array.from({ length: connections }, () => lane(until)));
  await all(Date.now() + 1000);
  took.length = 0;
  const [cpu, began] = [authority.cpu(), Date.now()];
  await all(Date.now() + 1000 * seconds);
  const [spent, lasted] = [authority.cpu() - cpu, (Date.now() - began) / 1000];
  agent.destroy();
  took.sort((one, other) => one - other);
  const each = (1e6 * spent) / took.length;
  return {
    exchanges: took.length,
    per_second: Math.round(took.length / lasted),
    cpu_us: Math.round(each),
    per_core: Math.round(1e6 / each),
    p50_ms: share(took, 0.5),
    p99_ms: share(took, 0.99),
    memory_mib: authority.memory(),
  };
}

/** A real PostgreSQL server, gone when its input ends. */
async function startPostgres() {
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

/** A sidecar that joins by a token an administrator made, from a place of its own; what it shows itself by. */
async function follower(authority, number) {
  const invited = await authority.manage('/v1/sidecars', { name: `follower-${number}`, tenants: ['acme'] });
  if (invited.status !== 201) throw new Error(`${invited.status}: ${invited.text}`);
  const { token } = JSON.parse(invited.text);
  const key = new Signer('', 'EdDSA');
  const digest = (text) => createHash('sha256').update(text).digest('base64url');
  key.header.kid = key.jwk.kid = digest(JSON.stringify({ crv: key.jwk.crv, kty: key.jwk.kty, x: key.jwk.x }));
  const signed = (type, name, more) => {
    const at = now();
    const claims = { iss: name, sub: name, aud: authority.issuer, jti: randomUUID(), iat: at, exp: at + 60, ...more };
    return key.jwt(claims, type);
  };
  const itself = `urn:ietf:params:oauth:jwk-thumbprint:sha-256:${key.jwk.kid}`;
  const proof = signed('countersign-enrolment+jwt', itself, { evidence: digest(token) });
  const body = JSON.stringify({ token, name: `follower-${number}`, jwk: key.jwk, proof });
  const from = { localAddress: `127.1.${number >> 8}.${number & 255}` };
  const answer = await authority.ask('POST', '/v1/sidecars/enrol', { 'content-type': 'application/json' }, body, from);
  if (answer.status !== 201) throw new Error(`${answer.status}: ${answer.text}`);
  const name = `${authority.issuer}/sidecars/${JSON.parse(answer.text).id}`;
  return () => signed('countersign-sidecar+jwt', name, {});
}

/** How followers are told: memory for each, and how long one withdrawal takes to reach them all. */
async function follow(count) {
  const authority = await Authority.start({});
  const sidecars = [];
  for (let number = 0; number < count; number++) sidecars.push(await follower(authority, number));
  const before = authority.memory();
  const agent = new http.Agent({ keepAlive: true, maxSockets: Infinity });
  const told = [];
  let [target, over, head] = [Infinity, false, 0];
  const lane = async (assertion) => {
    for (let after = 0; !over; ) {
      const headers = { authorization: `Bearer ${assertion()}` };
      const answer = await authority.ask('GET', `/v1/changes?after=${after}&wait=2`, headers, undefined, { agent });
      if (answer.status !== 200) throw new Error(`${answer.status}: ${answer.text}`);
      const news = JSON.parse(answer.text);
      if (after < target && news.head >= target) told.push(performance.now());
      after = news.head;
      head = Math.max(head, after);
    }
  };
  const all = Promise.all(sidecars.map(lane));
  const meanwhile = (milliseconds) => Promise.race([all, pause(milliseconds)]);
  await meanwhile(6000);
  const [cpu, memory] = [authority.cpu(), authority.memory()];
  await meanwhile(4000);
  const resting = (authority.cpu() - cpu) / 4;
  target = head + 1;
  const began = performance.now();
  const made = await authority.manage('/v1/withdrawals', { target: 'task:nobody', reason: 'measured' });
  if (made.status !== 201) throw new Error(`${made.status}: ${made.text}`);
  for (const limit = Date.now() + 30_000; told.length < count && Date.now() < limit; ) await meanwhile(20);
  const waited = told.map((at) => at - began).sort((one, other) => one - other);
  over = true;
  await all;
  agent.destroy();
  await authority.stop();
  return {
    followers: count,
    told: waited.length,
    p50_ms: share(waited, 0.5),
    p99_ms: share(waited, 0.99),
    cpu_at_rest: resting,
    memory_mib: memory,
    kib_each: (1024 * (memory - before)) / count,
  };
}

/** What so many live tasks take: memory of the process, and what an exchange among them costs. */
async function tasks(count) {
  const few = await Authority.start({});
  const [small, alone] = [few.memory(), await exchanges(few)];
  await few.stop();
  const many = await Authority.start({});
  for (let first = 0; first < count; first += AT_ONCE) {
    await many.restart(declared(many.agents, first, Math.min(count, first + AT_ONCE)));
  }
  await many.restart();
  const [large, among] = [many.memory(), await exchanges(many)];
  await many.stop();
  return { tasks: count, memory_mib: large, more_mib: large - small, cpu_us: among.cpu_us, cpu_us_alone: alone.cpu_us };
}

const results = {};
const say = (text) => (options.json ? undefined : console.log(text));
const round = (value) => Math.round(10 * value) / 10;
const asked = (what) => options.only === undefined || options.only === what;

if (asked('exchanges')) {
  results.exchanges = {};
  say('exchanges                 a core/s  CPU us  p50 ms  p99 ms     MiB');
  for (const database of ['SQLite', 'PostgreSQL']) {
    for (const algorithm of ['ES256', 'EdDSA']) {
      // One each: a database goes with the keys that it knows of.
      const postgres = database === 'PostgreSQL' ? await startPostgres() : undefined;
      const authority = await Authority.start({ algorithm, postgres });
      const found = await exchanges(authority);
      await authority.stop();
      await postgres?.stop();
      results.exchanges[`${database}, ${algorithm}`] = found;
      const columns = [found.per_core, found.cpu_us, round(found.p50_ms), round(found.p99_ms), round(found.memory_mib)];
      say(`${`${database}, ${algorithm}`.padEnd(26)}${columns.map((value) => String(value).padStart(8)).join('')}`);
    }
  }
}
if (asked('tasks')) {
  const found = (results.tasks = await tasks(Number(options.tasks)));
  say(`${found.tasks} live tasks: ${round(found.more_mib)} MiB more; an exchange takes ${found.cpu_us} us of CPU, ${found.cpu_us_alone} us without them`);
}
if (asked('followers')) {
  results.followers = [];
  for (const count of [1, 10, 100, 1000].filter((count) => count <= Number(options.followers))) {
    const found = await follow(count);
    results.followers.push(found);
    say(`${count} followers: a withdrawal reaches half in ${round(found.p50_ms)} ms and 99 % in ${round(found.p99_ms)} ms (${found.told} told); ${round(found.kib_each)} KiB each, ${round(100 * found.cpu_at_rest)} % of a core at rest`);
  }
}
if (options.json) console.log(JSON.stringify(results, null, 2));
