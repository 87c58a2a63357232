// From a withdrawal at the authority to the first call that a sidecar refuses for it: a real sidecar, which an agent calls
// without a pause, beside followers that are sockets.
//
// Counted from before the withdrawal is asked for until the refusal has come: the commit, the record and one call are in it,
// so what is said is never less than what it takes.

import { spawn, spawnSync } from 'node:child_process';
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';

import { ask, AUDIENCE, freePort, owned, pause, PEOPLE, share } from './authority.mjs';

const FIRST = 8; // the tasks before are the authority's own
const FORM = { 'content-type': 'application/x-www-form-urlencoded' };
const POLICY = 'package countersign.teams.support\n\nallow contains {"code": "everything"}\n';

/** A tool that has every order. */
export async function startTool() {
  const server = http.createServer((request, response) => {
    request.resume();
    response.end('{"id":"17","customer":{"id":"alice"},"status":"open"}');
  });
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  return { port: server.address().port, stop: () => new Promise((done) => { server.close(done); server.closeAllConnections(); }) };
}

/** A sidecar that joined `authority` as an operator has it join. Its policy is that of `bundle`, or lets everything go. */
export class Sidecar {
  static async start(authority, tool, { name = 'measured', bundle } = {}) {
    const sidecar = new Sidecar();
    sidecar.directory = mkdtempSync(join(tmpdir(), 'countersign-sidecar-'));
    const place = (name) => join(sidecar.directory, name);
    writeFileSync(place('join.token'), await authority.invite(name), { mode: 0o600 });
    const enrol = ['sidecar', 'enrol', '--authority', authority.issuer, '--token', place('join.token'), '--dir', place('enrolled'), '--name', name, '--json'];
    const enrolled = spawnSync(authority.binary, enrol, { encoding: 'utf8' });
    if (enrolled.status !== 0) throw new Error(`not enrolled: ${enrolled.stderr}`);
    sidecar.port = await freePort();
    const health = await freePort();
    mkdirSync(place('policies'), { mode: 0o700 });
    mkdirSync(place('ledger'), { mode: 0o700 });
    writeFileSync(join(place('policies'), 'support.rego'), POLICY, { mode: 0o600 });
    if (bundle) sidecar.offer(bundle);
    writeFileSync(place('people.json'), readFileSync(join(authority.directory, 'people.json')), { mode: 0o600 });
    writeFileSync(place('credential'), 'the-tools-own', { mode: 0o600 });
    const actions = ['orders.read', 'refunds.create'];
    const agents = authority.agents.map((_, number) => ({
      id: `support-${number}`, issuer: authority.issuer, owner: 'ops@acme.example', actions, tenants: ['acme'],
    }));
    const configuration = {
      sidecar: { name, audience: AUDIENCE, tenants: ['acme'] },
      listen: {
        agent: { tcp: `127.0.0.1:${sidecar.port}`, bearer: 'all', limits: { refusals_per_minute: 1000000 } },
        health: { tcp: `127.0.0.1:${health}` },
      },
      authority: {
        url: authority.issuer,
        credential: { key: 'enrolled/sidecar.pem', id: JSON.parse(enrolled.stdout).id },
        staleness: { read: '60s', write: '5s' },
      },
      issuers: [
        { issuer: authority.issuer, role: 'delegation', tenants: ['acme'], withdrawals: 'changes' },
        {
          issuer: PEOPLE, role: 'subject', tenants: ['acme'], claims: { tenant: 'tenant' }, keys: { file: 'people.json' },
          entitlements: { from: 'groups', map: { support: actions } },
        },
      ],
      agents,
      policy: [{ name: 'support', path: bundle ? 'support.tar.gz' : 'policies', for: ['orders'] }],
      ledger: { dir: 'ledger' },
      tools: {
        orders: {
          at: '/orders', upstream: `http://127.0.0.1:${tool.port}`, identity: 'service_account',
          credential: { bearer: { file: 'credential' } },
          actions: { 'orders.read': { match: 'GET /v1/orders/{order}', effect: 'read', resource: 'orders/{order}' } },
        },
      },
    };
    writeFileSync(place('countersign.yaml'), JSON.stringify(configuration), { mode: 0o600 });
    await sidecar.begin(authority.binary, health);
    return sidecar;
  }

  async begin(binary, health) {
    const command = ['sidecar', '--config', join(this.directory, 'countersign.yaml')];
    this.process = owned(spawn(binary, command, { stdio: ['ignore', 'ignore', 'pipe'] }));
    let [said, ended] = ['', false];
    this.process.stderr.on('data', (data) => (said = (said + data).slice(-4000)));
    this.process.once('exit', () => (ended = true));
    this.agent = new http.Agent({ keepAlive: true, maxSockets: 4 });
    for (const began = Date.now(); ; await pause(50)) {
      if (ended || Date.now() - began > 60_000) throw new Error(`no sidecar: ${said}`);
      if ((await ask(health, 'GET', '/readyz').catch(() => ({}))).status === 200) return;
    }
  }

  /** Puts `bundle` where its policy is read from, at once. */
  offer(bundle) {
    const next = join(this.directory, 'next.tar.gz');
    copyFileSync(bundle, next);
    chmodSync(next, 0o600);
    renameSync(next, join(this.directory, 'support.tar.gz'));
  }

  /** One call with `token`. */
  call(token) {
    const headers = { authorization: `Bearer ${token}` };
    return ask(this.port, 'GET', '/orders/v1/orders/17', headers, undefined, { agent: this.agent });
  }

  async stop() {
    const ended = new Promise((done) => this.process.once('exit', done));
    this.agent.destroy();
    this.process.kill('SIGTERM');
    await ended;
    rmSync(this.directory, { recursive: true });
  }
}

/** Takes one task back while its token is used; milliseconds until it is refused, and until the withdrawal was answered. */
async function round(authority, sidecar, task) {
  const got = await authority.ask('POST', '/oauth2/token', FORM, authority.form(authority.user(), task));
  if (got.status !== 200) throw new Error(`${got.status}: ${got.text}`);
  const token = JSON.parse(got.text).access_token;
  let [began, refused] = [0, 0];
  const calling = (async () => {
    for (;;) {
      const answer = await sidecar.call(token);
      if (answer.status === 200) continue;
      refused = performance.now();
      const { code } = JSON.parse(answer.text);
      if (began === 0 || !['withdrawn', 'task_ended'].includes(code)) throw new Error(`${answer.status}: ${answer.text}`);
      return;
    }
  })();
  await Promise.race([calling, pause(20 + 20 * Math.random())]);
  began = performance.now();
  const made = await authority.manage('/v1/withdrawals', { target: `task:task-${task}`, reason: 'measured' });
  const answered = performance.now();
  if (made.status !== 201) throw new Error(`${made.status}: ${made.text}`);
  await calling;
  return { refused: refused - began, answered: answered - began };
}

/** What a worker says next, or that it failed. */
const heard = (worker) => new Promise((done, failed) => { worker.once('message', done); worker.once('error', failed); });

/** So many withdrawals, with so many followers in all. */
export async function withdrawals(authority, followers, rounds, first = FIRST) {
  const tool = await startTool();
  const sidecar = await Sidecar.start(authority, tool);
  const tokens = [];
  for (let number = 0; number < followers - 1; number++) tokens.push(await authority.invite(`follower-${number}`));
  const { port, issuer } = authority;
  const company = new Worker(new URL('followers.mjs', import.meta.url), { workerData: { port, issuer, tokens } });
  await heard(company);
  const [refused, answered] = [[], []];
  for (let number = 0; number < rounds; number++) {
    const took = await round(authority, sidecar, first + number);
    refused.push(took.refused);
    answered.push(took.answered);
  }
  const ended = heard(company);
  company.postMessage('end');
  await ended;
  await company.terminate();
  await sidecar.stop();
  await tool.stop();
  for (const times of [refused, answered]) times.sort((one, other) => one - other);
  return {
    followers, withdrawals: rounds, p50_ms: share(refused, 0.5), p99_ms: share(refused, 0.99), most_ms: refused.at(-1),
    answered_p50_ms: share(answered, 0.5), answered_p99_ms: share(answered, 0.99),
  };
}
