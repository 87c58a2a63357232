// What every Node.js part does alike: read its options, say that it is ready, and leave nothing behind.

import { parseArgs } from 'node:util';

// Options are `--name value`, or `--name` alone where the default is a boolean. Anything else ends the part with a
// message, because a mistyped option in a test would otherwise test something else.
export function options(defaults) {
  const known = Object.fromEntries(
    Object.entries(defaults).map(([name, value]) => [name, { type: typeof value === 'boolean' ? 'boolean' : 'string' }]),
  );
  try {
    return { ...defaults, ...parseArgs({ options: known }).values };
  } catch (error) {
    console.error(error.message);
    process.exit(2);
  }
}

export async function listen(server, port) {
  await new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(Number(port), '127.0.0.1', resolve);
  });
  return server.address().port;
}

export function ready(facts) {
  process.stdout.write(`${JSON.stringify({ ready: true, ...facts })}\n`);
}

// A test that is killed cannot stop its parts, but the kernel closes its end of our stdin.
export function endWithTheTest() {
  const end = () => process.exit(0);
  process.on('SIGTERM', end);
  process.on('SIGINT', end);
  process.stdin.on('end', end).on('close', end).on('error', end).resume();
}

export async function readBody(request, limit = 1 << 20) {
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size > limit) throw new Error('the body is too large');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

// Waits until more may be written, or nothing ever will be.
export function drained(stream) {
  return new Promise((resolve) => {
    const go = () => {
      stream.off('drain', go).off('close', go);
      resolve();
    };
    stream.on('drain', go).on('close', go);
  });
}
