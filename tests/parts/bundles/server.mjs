// A bundle server: what lies in a directory, with ETag and, where it is asked for, held back until it changes, as OPA's
// own clients ask (`Prefer: wait`). In the file `mode` of the directory stands how it misbehaves: `away`, `redirect`.
//
//   node server.mjs --dir DIR [--port 0] [--token SECRET] [--holds-back]
//
// Its log, `requests.jsonl` in the directory, has a line for each request: its path, and what it brought.

import { createHash } from 'node:crypto';
import { appendFileSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';

import { endWithTheTest, listen, options, ready } from '../common/part.mjs';

const { dir, port, token, 'holds-back': holdsBack } = options({ dir: '', port: '0', token: '', 'holds-back': false });

const read = (name) => {
  try {
    return readFileSync(join(dir, name));
  } catch {
    return undefined;
  }
};
const mode = () => String(read('mode') ?? '').trim();
const tag = (bytes) => `"${createHash('sha256').update(bytes).digest('hex')}"`;

const server = createServer(async (request, response) => {
  const { authorization, prefer, 'if-none-match': known } = request.headers;
  const name = new URL(request.url, 'http://localhost').pathname.slice(1);
  appendFileSync(join(dir, 'requests.jsonl'), `${JSON.stringify({ name, authorization, prefer, known })}\n`);
  if (mode() === 'away') return request.socket.destroy();
  if (mode() === 'redirect') return response.writeHead(302, { location: `/${name}?elsewhere` }).end();
  if (token && authorization !== `Bearer ${token}`) return response.writeHead(401).end();
  const wait = holdsBack ? Number(/wait=(\d+)/.exec(prefer ?? '')?.[1] ?? 0) : 0;
  const until = Date.now() + wait * 1000;
  for (;;) {
    const bytes = read(name);
    if (!bytes) return response.writeHead(404).end();
    const type = holdsBack ? 'application/vnd.openpolicyagent.bundles' : 'application/gzip';
    const headers = { etag: tag(bytes), 'content-type': type };
    if (known !== headers.etag) return response.writeHead(200, headers).end(bytes);
    if (Date.now() >= until || mode() === 'away') return response.writeHead(304, headers).end();
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
});

endWithTheTest();
ready({ port: await listen(server, port) });
