// The tool's rare and wrong answers, as far as a server that means well can give them; what breaks the protocol itself is
// said over a raw socket by the tests.
//
//   *   /v1/odd/plain?bytes=N        N bytes with their length (0: an empty body)
//   *   /v1/odd/chunks?bytes=N       the same without a length
//   *   /v1/odd/status?code=N        that status, with a body where one may be
//   *   /v1/odd/trailers             announces X-Checksum and Set-Cookie in `Trailer`, sends those and X-Unannounced
//   *   /v1/odd/interim              103 with a Link, 102, 100 where the protocol has them, then 200
//   *   /v1/odd/lead?location=…&link=…&content-location=…   201 with these fields as they are given
//   *   /v1/odd/reset                500 of an unknown number of bytes, then the connection (HTTP/1.1) or stream (HTTP/2) breaks
//   *   /v1/odd/pour?bytes=N         N bytes as fast as they are taken, its progress in the log when it ends:
//                                    {"poured":bytes,"url","finished"}; GET /v1/odd/poured?of=URL says the same meanwhile,
//                                    and in "all" how much went into all such answers
//   *   /v1/odd/goodbye              200, then GOAWAY (HTTP/2) or the end of the connection (HTTP/1.1)
//   *   /v1/odd/refuse               HTTP/2: the stream is refused unprocessed (REFUSED_STREAM), unless ?of=N refusals of this URL
//                                    were enough; then 200
//   *   /v1/odd/crowded              HTTP/2: 300 header fields; ?bytes=N: one of N bytes
//   *   /v1/odd/echo                 what was received, as /v1/echo
//   POST /v1/odd/early               409 at the head of the request; the body is read afterwards, and logged

import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';

import { drained } from '../common/part.mjs';

const BLOCK = Buffer.alloc(26 * 2520, 'abcdefghijklmnopqrstuvwxyz');
const poured = new Map();

function* letters(bytes) {
  for (let left = bytes; left > 0; left -= BLOCK.length) yield BLOCK.subarray(0, left);
}

function number(url, name, otherwise) {
  return Number(url.searchParams.get(name) ?? otherwise);
}

async function write(response, bytes) {
  for (const block of letters(bytes)) {
    if (response.destroyed) return;
    if (!response.write(block)) await drained(response);
  }
}

async function plain(url, response) {
  const bytes = number(url, 'bytes', 10);
  response.writeHead(200, { 'content-type': 'application/octet-stream', 'content-length': bytes });
  await write(response, bytes);
  response.end();
}

async function chunks(url, response) {
  response.writeHead(200, { 'content-type': 'application/octet-stream' });
  response.flushHeaders?.();
  await write(response, number(url, 'bytes', 10));
  response.end();
}

function status(url, response) {
  const code = number(url, 'code', 200);
  const text = [204, 304].includes(code) ? '' : JSON.stringify({ code });
  response.writeHead(code, { 'content-type': 'application/json', etag: '"1"' });
  response.end(text);
}

async function trailers(url, response) {
  response.writeHead(200, { 'content-type': 'text/plain', trailer: 'X-Checksum, Set-Cookie' });
  response.write('first');
  await sleep(10);
  response.write('second');
  response.addTrailers({ 'X-Checksum': 'abc', 'Set-Cookie': 'a=b', 'X-Unannounced': '1' });
  response.end();
}

async function interim(url, response) {
  const hint = { link: '</style.css>; rel=preload' };
  if (response.stream) {
    response.stream.additionalHeaders({ ':status': 103, ...hint });
    response.stream.additionalHeaders({ ':status': 102 });
  } else {
    response.writeEarlyHints(hint);
    response.writeProcessing();
    response.writeContinue();
  }
  await sleep(20);
  response.writeHead(200, { 'content-type': 'text/plain', 'content-length': 5 });
  response.end('final');
}

function lead(url, response) {
  const fields = ['location', 'content-location', 'link'].filter((name) => url.searchParams.has(name));
  for (const name of fields) response.setHeader(name, url.searchParams.get(name));
  response.statusCode = 201;
  response.setHeader('content-type', 'application/json');
  response.end(JSON.stringify({ body: url.searchParams.get('location') }));
}

function goodbye(url, response) {
  const text = 'goodbye';
  const { socket } = response; // it is nobody's once the answer is out
  response.writeHead(200, { 'content-type': 'text/plain', 'content-length': text.length });
  response.end(text);
  const session = response.stream?.session;
  response.on('close', () => (session ? session.close() : socket.end()));
}

const refusals = new Map();

function refuse(url, response, seen) {
  const before = refusals.get(seen.url) ?? 0;
  if (before >= number(url, 'of', 1)) return json(response, 200, { refused: before });
  refusals.set(seen.url, before + 1);
  return response.stream.close(7); // REFUSED_STREAM
}

function crowded(url, response) {
  const bytes = number(url, 'bytes', 0);
  if (bytes > 0) response.setHeader('x-large', 'a'.repeat(bytes));
  else for (let field = 0; field < 300; field += 1) response.setHeader(`x-${field}`, 'b');
  response.end('crowded');
}

function end(response) {
  if (response.stream) response.stream.close(2); // INTERNAL_ERROR
  else response.socket.destroy();
}

function reset(url, response) {
  response.writeHead(200, { 'content-type': 'application/octet-stream' });
  response.write('x'.repeat(500), () => setTimeout(end, 50, response));
}

async function pour(url, response, seen, log) {
  const bytes = number(url, 'bytes', 1 << 30);
  const progress = { poured: 0, url: seen.url, finished: false };
  poured.set(seen.url, progress);
  response.on('close', () => log(progress));
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  response.flushHeaders?.();
  for (const block of letters(bytes)) {
    if (response.destroyed) return;
    if (!response.write(block)) await drained(response);
    progress.poured += block.length;
  }
  progress.finished = true;
  response.end();
}

function json(response, code, value) {
  const text = JSON.stringify(value);
  response.writeHead(code, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) });
  response.end(text);
}

const ODD = {
  plain, chunks, status, trailers, interim, lead, reset, pour, goodbye, refuse, crowded,
  poured: (url, response) => json(response, 200, {
    all: [...poured.values()].reduce((sum, one) => sum + one.poured, 0), ...poured.get(url.searchParams.get('of')),
  }),
  echo: (url, response, seen) => json(response, 200, seen),
};

export function odd(url, response, seen, log) {
  const name = url.pathname.slice('/v1/odd/'.length);
  return Object.hasOwn(ODD, name) ? ODD[name](url, response, seen, log) : json(response, 404, { error: 'no such answer' });
}

// By route, for answers that do not wait for the request.
export const early = {
  'POST /v1/odd/early': async (url, response, request, log) => {
    json(response, 409, { error: 'not now' });
    const hash = createHash('sha256');
    let bytes = 0;
    try {
      for await (const chunk of request) {
        hash.update(chunk);
        bytes += chunk.length;
      }
    } catch { /* the log says how far it came */ }
    log({ url: request.url, method: request.method, headers: [], body_bytes: bytes, body_sha256: hash.digest('hex') });
  },
};
