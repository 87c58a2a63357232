// The agents of the soak: reads, refunds, refusals of each kind, downloads and event streams at a steady rate over TLS,
// with tokens that are always new ones. Every answer must be the one that its call is bound to get.
//
//   node load.mjs PLAN.json     {"port","ca","key","kid","claims","rate","tokens_per_second","streams","connections","log"}
//
// `ca` is a file, `key` an ES256 key as JWK, `claims` those of every token. Once a second a JSON line goes to the file
// `log`: {"calls","tokens","streams","busy","cut","again","unexpected","samples"}. `busy` are refusals because the machine is,
// `cut` those because the tool closed a kept connection just when the call was sent on it, and `again` calls that were
// repeated because the sidecar did so with ours.

import { createPrivateKey, randomUUID, sign } from 'node:crypto';
import { appendFileSync, readFileSync } from 'node:fs';
import { Agent, request } from 'node:https';
import { setTimeout as sleep } from 'node:timers/promises';

import { endWithTheTest, ready } from '../parts/common/part.mjs';

const plan = JSON.parse(readFileSync(process.argv[2]));
const key = createPrivateKey({ key: plan.key, format: 'jwk' });
const tls = { host: 'localhost', port: plan.port, ca: readFileSync(plan.ca) };
const agent = new Agent({ keepAlive: true, maxSockets: plan.connections });
const streaming = new Agent({ keepAlive: false });
const count = { calls: 0, tokens: 0, streams: 0, busy: 0, cut: 0, again: 0, unexpected: 0, samples: [] };
const BUSY = ['overloaded', 'policy_budget', 'ledger_unavailable']; // the last one, where a disk takes seconds

const refund = (order, status) => ({
  method: 'POST', path: `/orders/v1/orders/${order}/refunds`, body: '{"amount":"20.00","currency":"USD"}', status,
});
const read = { method: 'GET', path: '/orders/v1/orders/17', status: 200 };
const MIX = [
  ...Array(10).fill(read),
  ...Array(4).fill(refund(17, 201)),
  refund(21, 403), // somebody else's order
  refund(18, 403), // an order that policy has a rule about
  { ...read, path: '/orders/v1/nothing', status: 403 },
  { ...read, path: '/orders/v1/download?bytes=65536' },
  { ...read, token: 'bm9i.b2R5.cw', status: 401 },
  { ...read, lifetime: -60, status: 401 },
];

const encoded = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');

function token(lifetime = 280) {
  const now = Math.floor(Date.now() / 1000);
  const claims = { ...plan.claims, iat: now - 100, nbf: now - 100, exp: now - 100 + lifetime, jti: randomUUID() };
  const signed = `${encoded({ typ: 'at+jwt', alg: 'ES256', kid: plan.kid })}.${encoded(claims)}`;
  return `${signed}.${sign('sha256', Buffer.from(signed), { key, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`;
}

// A hundred tokens are in use; the oldest goes when a new one comes.
const tokens = Array.from({ length: 100 }, () => token());
let oldest = 0;

function renew() {
  tokens[oldest] = token();
  oldest = (oldest + 1) % tokens.length;
  count.tokens += 1;
}

function unexpected(call, what) {
  count.unexpected += 1;
  if (count.samples.length < 20) count.samples.push(`${call.method} ${call.path}: ${what}`);
}

function send(call, bearer, onData, through) {
  return new Promise((resolve) => {
    const headers = { authorization: `Bearer ${bearer}` };
    if (call.body) Object.assign(headers, { 'content-type': 'application/json', 'content-length': call.body.length });
    const sending = request({ ...tls, agent: through, method: call.method, path: call.path, headers });
    sending.on('response', (response) => {
      response.on('data', onData);
      response.on('end', () => resolve({ status: response.statusCode }));
      response.on('error', (error) => resolve({ error }));
    });
    sending.on('error', (error) => resolve({ error, kept: sending.reusedSocket }));
    sending.end(call.body);
  });
}

async function answer(call, bearer, onData, through) {
  for (;;) {
    let text = '';
    const got = await send(call, bearer, (data) => {
      if (text.length < 65536) text += data;
      onData?.(data);
    }, through);
    if (got.error && got.kept) {
      count.again += 1;
      continue;
    }
    if (got.error) return unexpected(call, got.error.message);
    if (got.status === 503 && BUSY.some((code) => text.includes(`"code":"${code}"`))) count.busy += 1;
    else if (got.status === 502 && text.includes('"code":"tool_unreachable"')) count.cut += 1;
    else if (got.status !== call.status) unexpected(call, `${got.status} ${text.slice(0, 300)}`);
    return got.status;
  }
}

async function one(number) {
  const call = MIX[number % MIX.length];
  const bearer = call.token ?? (call.lifetime ? token(call.lifetime) : tokens[number % tokens.length]);
  await answer(call, bearer, undefined, agent);
  count.calls += 1;
}

// Streams of ten seconds, one after another.
async function follow() {
  const call = { method: 'GET', path: '/orders/v1/stream?count=40&every=250', status: 200 };
  for (;;) {
    let events = 0;
    const status = await answer(call, tokens[0], (data) => { events += String(data).split('\ndata:').length - 1; }, streaming);
    if (status === 200 && events !== 40) unexpected(call, `${events} events of 40`);
    count.streams += 1;
    if (status !== 200) await sleep(1000);
  }
}

async function main() {
  const began = Date.now();
  let [started, underWay] = [0, 0];
  for (let index = 0; index < plan.streams; index += 1) follow();
  setInterval(() => appendFileSync(plan.log, `${JSON.stringify(count)}\n`), 1000);
  for (;;) {
    const seconds = (Date.now() - began) / 1000;
    while (count.tokens < seconds * plan.tokens_per_second) renew();
    // What a busy machine could not start in time is not made up for: the rate is a most.
    if (started < seconds * plan.rate - 100) started = Math.floor(seconds * plan.rate);
    while (started < seconds * plan.rate && underWay < 100) {
      underWay += 1;
      one(started).finally(() => { underWay -= 1; });
      started += 1;
    }
    await sleep(10);
  }
}

endWithTheTest();
ready({});
await main();
