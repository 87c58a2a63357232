// A tool: an orders API over TLS (HTTP/2 and HTTP/1.1 by ALPN) or in clear text (HTTP/1.1, or HTTP/2 alone with --http 2), which tells exactly what reached it.
//
//   node server.mjs [--port 0] [--log FILE] (--plain | --tls DIR [--certificate good] [--http both] [--client-ca FILE])
//
// --tls makes a CA and a certificate for localhost, 127.0.0.1, ::1 and orders.example in DIR; the ready line names DIR/ca.pem.
// --certificate: good · expired · other-name (only orders.example) · self-signed (by nobody else) · unknown (by another CA)
// --http: 1 (HTTP/1.1 only) · 2 (HTTP/2 only) · both (by ALPN)
// --client-ca asks for a client certificate of that CA and serves nobody without one.
// --log appends one JSON line a request, before its response begins:
//   {"time","method","url","http","peer","headers":[[name,value],…],"trailers":[[name,value],…],"body_bytes","body_sha256","complete"}
// `peer` is the subject's common name of the client certificate, or null.
// `url` and `headers` are as they came, in their order (HTTP/2 pseudo-headers included). "complete": false is a request
// whose body was broken off.
//
//   GET  /v1/orders/{id}            17, 18, 23 (alice), 21, 22 (bob), 31 (carol); 404 for others; and these ids answer oddly:
//                                   500 · slow (?ms=3000) · gone (410) · garbage (not JSON) · huge (?bytes=4194304) ·
//                                   moved (302) · typed (owner is a number) · empty (200, no body) · ownerless
//   GET  /v1/orders                 the list
//   POST /v1/orders/{id}/refunds    201, with the body's sha256 and every received header
//   *    /v1/echo…                  200, the same for any method and path below
//   POST /v1/upload                 {"bytes","sha256","chunks","first_byte_at","last_byte_at"} (ms since the epoch)
//   GET  /v1/download?bytes=N       N bytes, 'a' to 'z' again and again
//   GET  /v1/stream?count=10&every=50   server-sent events: id, and data {"n","sent_at"}; when it ends, the log says
//                                   {"poured":events,"url","finished"}
//   GET  /v1/status/{code}          that status
//   GET  /v1/redirect?to=URL        302; by default to another host
//   GET  /v1/cookie                 Set-Cookie twice, WWW-Authenticate, and hop-by-hop fields where the protocol allows
//   GET  /v1/hang                   reads the request, never answers
//   GET  /v1/cut                    promises 1000 bytes, sends 500, breaks the connection
//   GET  /v1/drop                   breaks the connection without an answer
//   *    /v1/odd/{name}             answers that are rare or wrong: see odd.mjs

import { createHash } from 'node:crypto';
import { appendFileSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createSecureServer, createServer as createHttp2Server } from 'node:http2';
import { createServer as createHttpsServer } from 'node:https';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';

import { certificates } from '../common/certificates.mjs';
import { endWithTheTest, listen, options, ready } from '../common/part.mjs';
import { early, odd } from './odd.mjs';

const asked = options({
  port: '0', log: '', plain: false, tls: '', certificate: 'good', http: 'both', 'client-ca': '',
});
if (asked.plain === (asked.tls !== '')) {
  console.error('say either --plain or --tls DIR');
  process.exit(2);
}

const order = (id, owner, total, currency = 'USD') => [id, { id, customer: { id: owner }, total, currency, status: 'paid' }];
const ORDERS = new Map([
  order('17', 'alice', '120.00'),
  order('18', 'alice', '35.50'),
  order('23', 'alice', '12000', 'JPY'),
  order('21', 'bob', '60.00'),
  order('22', 'bob', '980.10', 'EUR'),
  order('31', 'carol', '75.00'),
]);

const ODD_ORDERS = {
  500: (url, response) => json(response, 500, { error: 'the orders database is down' }),
  gone: (url, response) => json(response, 410, { error: 'gone' }),
  garbage: (url, response) => send(response, 200, 'application/json', '{"id":"garbage","customer":'),
  moved: (url, response) => redirect(response, '/v1/orders/17'),
  typed: (url, response) => json(response, 200, { id: 'typed', customer: { id: 17 }, total: 120, currency: null }),
  empty: (url, response) => send(response, 200, 'application/json', ''),
  ownerless: (url, response) => json(response, 200, { id: 'ownerless', total: '1.00', currency: 'USD' }),
  slow: async (url, response) => {
    await sleep(number(url, 'ms', 3000));
    json(response, 200, { ...ORDERS.get('17'), id: 'slow' });
  },
  huge: (url, response) => json(response, 200, {
    ...ORDERS.get('17'), id: 'huge', note: 'x'.repeat(number(url, 'bytes', 4 << 20)),
  }),
};

function number(url, name, otherwise) {
  return Number(url.searchParams.get(name) ?? otherwise);
}

function send(response, status, type, text) {
  response.writeHead(status, { 'content-type': type, 'content-length': Buffer.byteLength(text) });
  response.end(text);
}

function json(response, status, value) {
  send(response, status, 'application/json', JSON.stringify(value));
}

function redirect(response, location) {
  response.writeHead(302, { location, 'content-length': 0 });
  response.end();
}

function pairs(raw) {
  return Array.from({ length: raw.length / 2 }, (_, index) => [raw[2 * index], raw[2 * index + 1]]);
}

function log(line) {
  if (asked.log) appendFileSync(asked.log, `${JSON.stringify(line)}\n`);
}

function peer(request) {
  const socket = request.stream?.session?.socket ?? request.socket;
  return socket.getPeerCertificate?.()?.subject?.CN ?? null;
}

// Reads the whole body, never keeping it, and writes the log's line: a test that has its answer may read the log.
async function receive(request) {
  const seen = {
    time: new Date().toISOString(), method: request.method, url: request.url, http: request.httpVersion, peer: peer(request),
    headers: pairs(request.rawHeaders), trailers: [], body_bytes: 0, body_sha256: '', complete: true,
  };
  const hash = createHash('sha256');
  const body = { chunks: 0, first_byte_at: null, last_byte_at: null };
  try {
    for await (const chunk of request) {
      hash.update(chunk);
      seen.body_bytes += chunk.length;
      body.chunks += 1;
      body.last_byte_at = Date.now();
      body.first_byte_at ??= body.last_byte_at;
    }
    seen.complete = !request.aborted;
  } catch {
    seen.complete = false;
  }
  seen.body_sha256 = hash.digest('hex');
  seen.trailers = pairs(request.rawTrailers ?? []);
  log(seen);
  return { ...seen, ...body };
}

function echo({ method, url, http, headers, trailers, body_bytes, body_sha256 }) {
  return { method, url, http, headers, trailers, body_bytes, body_sha256 };
}

function breakConnection(response) {
  if (response.stream) response.stream.session.destroy();
  else response.socket.destroy();
}

function* letters(bytes) {
  const block = Buffer.alloc(26 * 2520, 'abcdefghijklmnopqrstuvwxyz');
  for (let left = bytes; left > 0; left -= block.length) yield block.subarray(0, left);
}

async function download(url, response) {
  const bytes = number(url, 'bytes', 1 << 20);
  response.writeHead(200, { 'content-type': 'application/octet-stream', 'content-length': bytes });
  await pipeline(Readable.from(letters(bytes)), response).catch(() => {}); // the reader may leave when it likes
}

async function stream(url, response, seen) {
  const progress = { poured: 0, url: seen.url, finished: false };
  response.on('close', () => log(progress));
  response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
  response.flushHeaders?.();
  const count = number(url, 'count', 10);
  for (let n = 1; n <= count && !response.destroyed; n += 1) {
    response.write(`id: ${n}\ndata: ${JSON.stringify({ n, sent_at: Date.now() })}\n\n`);
    progress.poured = n;
    await sleep(number(url, 'every', 50));
  }
  progress.finished = !response.destroyed;
  response.end();
}

function cookie(url, response) {
  response.setHeader('set-cookie', ['session=tool-secret; HttpOnly', 'theme=dark']);
  response.setHeader('www-authenticate', 'Bearer realm="the tool\'s own"');
  if (!response.stream) {
    response.setHeader('connection', 'close, x-private-hop');
    response.setHeader('x-private-hop', 'must not cross');
    response.setHeader('keep-alive', 'timeout=5');
    response.setHeader('proxy-authenticate', 'Basic realm="hop"');
  }
  json(response, 200, { ok: true });
}

function cut(url, response) {
  response.writeHead(200, { 'content-type': 'application/octet-stream', 'content-length': 1000 });
  response.write('x'.repeat(500), () => setTimeout(breakConnection, 50, response));
}

const FIXED = {
  'GET /v1/orders': (url, response) => json(response, 200, { orders: [...ORDERS.values()] }),
  'POST /v1/upload': (url, response, { body_bytes: bytes, body_sha256: sha256, chunks, first_byte_at, last_byte_at }) => {
    json(response, 200, { bytes, sha256, chunks, first_byte_at, last_byte_at });
  },
  'GET /v1/download': download,
  'GET /v1/stream': stream,
  'GET /v1/redirect': (url, response) => redirect(response, url.searchParams.get('to') ?? 'https://elsewhere.example/v1/orders/17'),
  'GET /v1/cookie': cookie,
  'GET /v1/hang': () => {},
  'GET /v1/cut': cut,
  'GET /v1/drop': (url, response) => breakConnection(response),
};

const PATTERNS = [
  [/^GET \/v1\/orders\/([^/]+)$/, (url, response, seen, [id]) => {
    if (ORDERS.has(id)) return json(response, 200, ORDERS.get(id));
    if (Object.hasOwn(ODD_ORDERS, id)) return ODD_ORDERS[id](url, response);
    return json(response, 404, { error: 'no such order' });
  }],
  [/^POST \/v1\/orders\/([^/]+)\/refunds$/, (url, response, seen, [id]) => (
    json(response, 201, { refund: `refund-of-${id}`, received: echo(seen) })
  )],
  [/^GET \/v1\/status\/([2-5]\d\d)$/, (url, response, seen, [code]) => json(response, Number(code), { status: Number(code) })],
  [/^[A-Z]+ \/v1\/echo(?:\/.*)?$/, (url, response, seen) => json(response, 200, echo(seen))],
];

async function answer(request, response) {
  const url = new URL(request.url, 'http://tool.invalid');
  const route = `${request.method} ${url.pathname}`;
  if (Object.hasOwn(early, route)) return early[route](url, response, request, log);
  const seen = await receive(request);
  if (!seen.complete) return undefined;
  if (url.pathname.startsWith('/v1/odd/')) return odd(url, response, seen, log);
  if (Object.hasOwn(FIXED, route)) return FIXED[route](url, response, seen);
  for (const [pattern, handler] of PATTERNS) {
    const match = pattern.exec(route);
    if (match) return handler(url, response, seen, match.slice(1));
  }
  return json(response, 404, { error: 'no such path', received: echo(seen) });
}

function handle(request, response) {
  response.on('error', () => {});
  answer(request, response).catch((error) => {
    console.error(error);
    breakConnection(response);
  });
}

endWithTheTest();
const made = asked.plain ? null : certificates(asked.tls, asked.certificate);
const server = made ? secured(made) : asked.http === '2' ? createHttp2Server(handle) : createServer(handle);
const port = await listen(server, asked.port);
ready({ port, url: `${made ? 'https' : 'http'}://localhost:${port}`, ca: made?.ca ?? null });

function secured({ key, cert }) {
  const settings = { key, cert, minVersion: 'TLSv1.2' };
  if (asked['client-ca']) {
    Object.assign(settings, { ca: readFileSync(asked['client-ca']), requestCert: true, rejectUnauthorized: true });
  }
  if (asked.http === '1') return createHttpsServer(settings, handle);
  return createSecureServer({ ...settings, allowHTTP1: asked.http === 'both' }, handle);
}
