// The errand of agent.py with the `fetch` that is built into Node.js.
//
//   node fetch.mjs < ERRAND

import { readFileSync } from 'node:fs';

const asked = JSON.parse(readFileSync(0, 'utf8'));
const base = `${asked.base}/orders/v1`;
const bearer = { authorization: `Bearer ${asked.token}`, 'x-mark': asked.mark };
const probe = { authorization: `Bearer ${asked.probe}`, 'x-mark': asked.mark };

async function seen(answer) {
  const type = answer.headers.get('content-type') ?? '';
  return {
    status: answer.status,
    type,
    retry_after: answer.headers.get('retry-after'),
    decision_id: answer.headers.get('countersign-decision-id'),
    json: type.includes('json') ? await answer.json() : (await answer.arrayBuffer(), null),
  };
}

const get = async (path, headers) => seen(await fetch(base + path, { headers }));

async function refund(amount) {
  return seen(await fetch(`${base}/orders/17/refunds`, {
    method: 'POST',
    headers: { ...bearer, 'content-type': 'application/json' },
    body: JSON.stringify({ amount, currency: 'USD' }),
  }));
}

async function* pieces() {
  for (let number = 0; number < 64; number += 1) yield new Uint8Array(4096).fill(number);
}

async function upload() {
  return seen(await fetch(`${base}/upload`, {
    method: 'POST', headers: probe, body: ReadableStream.from(pieces()), duplex: 'half',
  }));
}

// The first events of a stream, which is then left.
async function events(path, count) {
  const leave = new AbortController();
  const answer = await fetch(base + path, { headers: probe, signal: leave.signal });
  const found = [];
  let text = '';
  for await (const chunk of answer.body.pipeThrough(new TextDecoderStream())) {
    text += chunk;
    const lines = text.split('\n');
    text = lines.pop();
    for (const line of lines) if (line.startsWith('data: ')) found.push(JSON.parse(line.slice(6)).n);
    if (found.length >= count) break;
  }
  leave.abort();
  return { events: found.slice(0, count), decision_id: answer.headers.get('countersign-decision-id') };
}

const steps = {
  version: 'HTTP/1.1',
  read: await get('/orders/17', bearer),
  refund: await refund('20.00'),
  too_much: await refund('80.00'),
  no_token: await get('/orders/17', {}),
  later: await get('/hang', probe),
  upload: await upload(),
  missing: await get('/orders/404', bearer),
  led: await get('/redirect?to=/v1/echo/there', probe),
  stream: await events('/stream?count=1000&every=100', 3),
  after: await Promise.all(Array.from({ length: 10 }, async () => (await get('/orders/17', bearer)).status)),
  together: (await Promise.all(Array.from({ length: 20 }, () => get('/orders/17', bearer)))).map(
    ({ status, decision_id: id }) => [status, id],
  ),
};
process.stdout.write(`${JSON.stringify(steps)}\n`);
process.exit(0);
