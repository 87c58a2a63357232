#!/usr/bin/env node
// What the authority costs: exchanges per second of one core and how long they take, for both databases and both
// algorithms (of users' tokens, agents' assertions and what is issued); how long a withdrawal takes until a sidecar refuses
// for it and until followers are told, and a pin of policy until every sidecar decides by it; how much memory followers and
// live tasks take.
//
//   node benches/authority/run.mjs [--binary target/dist/countersign] [--seconds 10] [--connections 32]
//                                  [--tasks 100000] [--followers 1000] [--withdrawals 200]
//                                  [--pins 20] [--sidecars 3] [--rules 200]
//                                  [--only exchanges|reissues|withdrawals|pins|tasks|followers] [--json]
//
// CPU is what the authority's process used, from /proc, divided by the exchanges it answered: what this machine's other
// work changes least. One core's worth of exchanges is its inverse; the database server's own CPU is not in it.
// Everything is on loopback, and ends by itself.

import http from 'node:http';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

import { Authority, declared, pause, ROOT, share, startPostgres } from './authority.mjs';
import { Followers } from './followers.mjs';
import { pins } from './pin.mjs';
import { withdrawals } from './withdrawal.mjs';

const AT_ONCE = 10_000; // tasks in one file of declarations, which has a bound
const FORM = { 'content-type': 'application/x-www-form-urlencoded' };

const { values: options } = parseArgs({
  options: {
    binary: { type: 'string', default: join(ROOT, 'target/dist/countersign') },
    seconds: { type: 'string', default: '10' },
    connections: { type: 'string', default: '32' },
    tasks: { type: 'string', default: '100000' },
    followers: { type: 'string', default: '1000' },
    withdrawals: { type: 'string', default: '200' },
    pins: { type: 'string', default: '20' },
    sidecars: { type: 'string', default: '3' },
    rules: { type: 'string', default: '200' },
    only: { type: 'string' },
    json: { type: 'boolean', default: false },
  },
});
const { binary } = options;
const seconds = Number(options.seconds);
const connections = Number(options.connections);

/** The forms of exchanges of one token of alice's. */
function exchange(authority) {
  const subject = authority.user();
  return () => authority.form(subject);
}

/** As many exchanges as go in the time, over a few connections. */
async function exchanges(authority, form) {
  const agent = new http.Agent({ keepAlive: true, maxSockets: connections });
  const took = [];
  const lane = async (until) => {
    while (Date.now() < until) {
      const answer = await authority.ask('POST', '/oauth2/token', FORM, form(), { agent });
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

/** The forms of tokens anew, once alice is known. */
async function reissue(authority) {
  const answer = await authority.ask('POST', '/oauth2/token', FORM, authority.form(authority.user()));
  if (answer.status !== 200) throw new Error(`${answer.status}: ${answer.text}`);
  return () => authority.form();
}

/** How followers are told: memory for each, and how long one withdrawal takes to reach them all. */
async function follow(count) {
  const authority = await Authority.start({ binary });
  const tokens = [];
  for (let number = 0; number < count; number++) tokens.push(await authority.invite(`follower-${number}`));
  const followers = await Followers.join(authority, tokens);
  const before = authority.memory();
  followers.begin();
  await followers.meanwhile(6000);
  const [cpu, memory] = [authority.cpu(), authority.memory()];
  await followers.meanwhile(4000);
  const resting = (authority.cpu() - cpu) / 4;
  followers.target = followers.head + 1;
  const began = performance.now();
  const made = await authority.manage('/v1/withdrawals', { target: 'task:nobody', reason: 'measured' });
  if (made.status !== 201) throw new Error(`${made.status}: ${made.text}`);
  for (const limit = Date.now() + 30_000; followers.told.length < count && Date.now() < limit; ) await followers.meanwhile(20);
  const waited = followers.told.map((at) => at - began).sort((one, other) => one - other);
  await followers.end();
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

/** From the withdrawal of a task to the first refused call at a sidecar, with so many followers in all. */
async function refusals(count) {
  const rounds = Number(options.withdrawals);
  const authority = await Authority.start({ binary });
  await authority.restart(declared(authority.agents, 8, 8 + rounds));
  const found = await withdrawals(authority, count, rounds);
  await authority.stop();
  return found;
}

/** What so many live tasks take: memory of the process, and what an exchange among them costs. */
async function tasks(count) {
  const few = await Authority.start({ binary });
  const [small, alone] = [few.memory(), await exchanges(few, exchange(few))];
  await few.stop();
  const many = await Authority.start({ binary });
  for (let first = 0; first < count; first += AT_ONCE) {
    await many.restart(declared(many.agents, first, Math.min(count, first + AT_ONCE)));
  }
  await many.restart();
  const [large, among] = [many.memory(), await exchanges(many, exchange(many))];
  await many.stop();
  return { tasks: count, memory_mib: large, more_mib: large - small, cpu_us: among.cpu_us, cpu_us_alone: alone.cpu_us };
}

const results = {};
const say = (text) => (options.json ? undefined : console.log(text));
const round = (value) => Math.round(10 * value) / 10;
const asked = (what) => options.only === undefined || options.only === what;

for (const [what, form] of [['exchanges', exchange], ['reissues', reissue]].filter(([what]) => asked(what))) {
  results[what] = {};
  say(`${what.padEnd(26)}a core/s  CPU us  p50 ms  p99 ms     MiB`);
  for (const database of ['SQLite', 'PostgreSQL']) {
    for (const algorithm of ['ES256', 'EdDSA']) {
      // One each: a database goes with the keys that it knows of.
      const postgres = database === 'PostgreSQL' ? await startPostgres() : undefined;
      const authority = await Authority.start({ binary, algorithm, postgres });
      const found = await exchanges(authority, await form(authority));
      await authority.stop();
      await postgres?.stop();
      results[what][`${database}, ${algorithm}`] = found;
      const columns = [found.per_core, found.cpu_us, round(found.p50_ms), round(found.p99_ms), round(found.memory_mib)];
      say(`${`${database}, ${algorithm}`.padEnd(26)}${columns.map((value) => String(value).padStart(8)).join('')}`);
    }
  }
}
if (asked('withdrawals')) {
  results.withdrawals = [];
  for (const count of [1, 10, 100]) {
    const found = await refusals(count);
    results.withdrawals.push(found);
    say(`${count} followers: a call is refused ${round(found.p50_ms)} ms after its withdrawal was asked for, 99 % within ${round(found.p99_ms)} ms, all ${found.withdrawals} within ${round(found.most_ms)} ms; the withdrawal itself is answered in ${round(found.answered_p50_ms)} and ${round(found.answered_p99_ms)} ms`);
  }
}
if (asked('pins')) {
  const authority = await Authority.start({ binary });
  const found = (results.pins = await pins(authority, Number(options.sidecars), Number(options.pins), Number(options.rules)));
  await authority.stop();
  say(`${found.sidecars} sidecars, ${found.rules} rules: all decide by what is pinned ${round(found.p50_ms)} ms after the answer, ${round(found.most_ms)} ms at most of ${found.pins}; unpinned, by the newest after ${round(found.unpinned_p50_ms)} and ${round(found.unpinned_most_ms)} ms`);
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
