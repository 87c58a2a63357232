// An agent that says everything about the answers it gets, over HTTP/1.1 or HTTP/2, in clear text or TLS.
//
//   node agent.mjs < REQUESTS
//
// REQUESTS is a JSON array, done one after the other on one connection for each protocol and origin:
//   {"url","http":"1"|"2","ca":FILE?,"method":"GET","headers":{…},"body":{"bytes":N,"pieces":N?,"trailers":{…}?,"text"?}?}
// On stdout comes one JSON line for each:
//   {"status","headers":{…},"interim":[status,…],"trailers":{…},"bytes","sha256","text","complete","error","sent_all"}
// `complete` is whether the body came to a clean end; `text` is the body where it is small; `error` is what went wrong
// before or after the head. `sent_all` is whether the whole request body was taken.

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import http2 from 'node:http2';
import https from 'node:https';

import { drained } from '../common/part.mjs';

const PATIENCE = 30_000;
const agents = { 'http:': new http.Agent({ keepAlive: true, maxSockets: 1 }), 'https:': new https.Agent({ keepAlive: true, maxSockets: 1 }) };
const sessions = new Map();

function session(origin, ca) {
  const open = sessions.get(origin);
  if (open && !open.closed && !open.destroyed) return open;
  const fresh = http2.connect(origin, ca ? { ca: readFileSync(ca) } : {});
  fresh.on('error', () => {});
  sessions.set(origin, fresh);
  return fresh;
}

function* pieces({ text, bytes = 0, pieces: count = 1 }) {
  if (text !== undefined) return yield Buffer.from(text);
  const block = Buffer.alloc(26 * 2520, 'abcdefghijklmnopqrstuvwxyz');
  const each = 26 * Math.ceil(bytes / count / 26);
  for (let left = bytes; left > 0; left -= each) {
    for (let piece = Math.min(left, each); piece > 0; piece -= block.length) yield block.subarray(0, piece);
  }
}

async function upload(body, stream, seen) {
  try {
    for (const piece of pieces(body)) {
      if (stream.destroyed || stream.writableEnded || seen.over) return;
      if (!stream.write(piece)) await drained(stream);
    }
    stream.end();
    seen.sent_all = !stream.destroyed;
  } catch (error) {
    seen.error ??= error.code ?? error.message;
  }
}

function download(stream, seen, done) {
  const hash = createHash('sha256');
  const kept = [];
  stream.on('data', (chunk) => {
    hash.update(chunk);
    seen.bytes += chunk.length;
    if (seen.bytes <= 1 << 16) kept.push(chunk);
  });
  const over = () => {
    seen.sha256 = hash.digest('hex');
    seen.text = seen.bytes <= 1 << 16 ? Buffer.concat(kept).toString() : null;
    done();
  };
  return over;
}

function over1(asked, seen) {
  return new Promise((done) => {
    const url = new URL(asked.url);
    const { request: start } = url.protocol === 'https:' ? https : http;
    const body = asked.body;
    const headers = { ...asked.headers };
    if (body?.trailers) headers.trailer = Object.keys(body.trailers).join(', ');
    const request = start(url, {
      method: asked.method ?? 'GET', headers, agent: agents[url.protocol], ca: asked.ca && readFileSync(asked.ca), timeout: PATIENCE,
    });
    request.on('information', ({ statusCode }) => seen.interim.push(statusCode));
    request.on('timeout', () => request.destroy(new Error('no answer in time')));
    request.on('error', (error) => { seen.error ??= error.code ?? error.message; if (seen.status === null) done(); });
    request.on('response', (response) => {
      seen.status = response.statusCode;
      seen.headers = response.headers;
      const over = download(response, seen, done);
      response.on('error', (error) => { seen.error ??= error.code ?? error.message; });
      response.on('close', () => {
        seen.complete = response.complete;
        seen.trailers = response.trailers;
        seen.over = true;
        over();
      });
    });
    if (body?.trailers) request.addTrailers(body.trailers);
    if (body) upload(body, request, seen); else request.end();
  });
}

function over2(asked, seen) {
  return new Promise((done) => {
    const url = new URL(asked.url);
    const body = asked.body;
    const headers = { ':method': asked.method ?? 'GET', ':path': url.pathname + url.search, ...asked.headers };
    if (body?.trailers) headers.trailer = Object.keys(body.trailers).join(', ');
    const stream = session(url.origin, asked.ca).request(headers, { endStream: !body, waitForTrailers: Boolean(body?.trailers) });
    stream.setTimeout(PATIENCE, () => stream.close(8));
    if (body?.trailers) stream.on('wantTrailers', () => stream.sendTrailers(body.trailers));
    stream.on('headers', (fields) => seen.interim.push(fields[':status']));
    stream.on('response', (fields) => {
      seen.status = fields[':status'];
      seen.headers = Object.fromEntries(Object.entries(fields).filter(([name]) => !name.startsWith(':')));
    });
    stream.on('trailers', (fields) => { seen.trailers = { ...fields }; });
    stream.on('end', () => { seen.complete = stream.rstCode === 0; });
    stream.on('error', (error) => { seen.error ??= error.code ?? error.message; });
    const over = download(stream, seen, done);
    stream.on('close', () => {
      if (stream.rstCode !== 0) seen.complete = false;
      if (stream.rstCode) seen.error ??= `RST_STREAM ${stream.rstCode}`;
      seen.over = true;
      over();
    });
    if (body) upload(body, stream, seen);
  });
}

const requests = JSON.parse(readFileSync(0, 'utf8'));
for (const asked of requests) {
  const seen = {
    status: null, headers: {}, interim: [], trailers: {}, bytes: 0, sha256: null, text: null, complete: false, error: null,
    sent_all: false,
  };
  await (asked.http === '2' ? over2 : over1)(asked, seen);
  process.stdout.write(`${JSON.stringify({ ...seen, over: undefined })}\n`);
}
process.exit(0);
