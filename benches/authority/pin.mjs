// From the word that a bundle of policy is pinned to the first call that each sidecar decides by the pinned revision, and
// back when that is over: real sidecars, each called without a pause.
//
// Counted from when the authority has answered, as `countersign policy pin` returns then, until an answer by that revision
// has come: one call, and the trial of the policy in a process of its own, are in it.

import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { share } from './authority.mjs';
import { Sidecar, startTool } from './withdrawal.mjs';

const FORM = { 'content-type': 'application/x-www-form-urlencoded' };
const PATIENCE = 60_000;
const HEAD = 'package countersign.teams.support\n\nallow contains {"code": "everything"}\n';
const DENIES = '\ndeny contains {"code": "since_two"}\n';
const rule = (number) => `
deny contains {"code": "rule_${number}"} if {
	input.action.name == "orders.close_${number}"
	not "lead" in input.user.groups
}
`;

/** The bundles `r1`, which lets everything go, and `r2`, which nothing. */
function made(binary, rules) {
  const directory = mkdtempSync(join(tmpdir(), 'countersign-pins-'));
  const others = Array.from({ length: rules }, (_, number) => rule(number)).join('');
  const bundle = (serial, text) => {
    const [from, to] = [join(directory, `r${serial}`), join(directory, `r${serial}.tar.gz`)];
    mkdirSync(from);
    writeFileSync(join(from, 'support.rego'), text);
    const build = ['policy', 'build', from, '-o', to, '--name', 'support', '--revision', `r${serial}`, '--serial', String(serial)];
    const ran = spawnSync(binary, build, { encoding: 'utf8' });
    if (ran.status !== 0) throw new Error(`not built: ${ran.stderr}`);
    return to;
  };
  return { r1: bundle(1, HEAD + others), r2: bundle(2, HEAD + DENIES + others), gone: () => rmSync(directory, { recursive: true }) };
}

/** A token of alice's that is good for some minutes. */
async function token(authority) {
  const got = await authority.ask('POST', '/oauth2/token', FORM, authority.form(authority.user()));
  if (got.status !== 200) throw new Error(`${got.status}: ${got.text}`);
  return JSON.parse(got.text).access_token;
}

/** When the calls of `sidecar` were answered with `status`. */
async function answers(sidecar, token, status) {
  for (const until = performance.now() + PATIENCE; performance.now() < until; ) {
    if ((await sidecar.call(token)).status === status) return performance.now();
  }
  throw new Error(`no ${status} within ${PATIENCE / 1000} s`);
}

/** Says something of pins; milliseconds from the answer until each sidecar's calls are answered with `status`. */
async function round(authority, sidecars, path, body, status) {
  const shown = await token(authority);
  const calling = Promise.all(sidecars.map((sidecar) => answers(sidecar, shown, status)));
  const said = await authority.manage(path, body);
  const returned = performance.now();
  if (said.status >= 300) throw new Error(`${said.status}: ${said.text}`);
  return { id: JSON.parse(said.text).id, waited: (await calling).map((at) => at - returned) };
}

/** So many pins and unpins at so many sidecars, of a policy of so many rules. */
export async function pins(authority, count, rounds, rules) {
  const tool = await startTool();
  const bundles = made(authority.binary, rules);
  const sidecars = [];
  for (let number = 0; number < count; number++) {
    sidecars.push(await Sidecar.start(authority, tool, { name: `pinned-${number}`, bundle: bundles.r1 }));
  }
  let shown = await token(authority);
  await Promise.all(sidecars.map((sidecar) => answers(sidecar, shown, 200)));
  sidecars.forEach((sidecar) => sidecar.offer(bundles.r2));
  await Promise.all(sidecars.map((sidecar) => answers(sidecar, shown, 403)));
  const [pinned, unpinned] = [[], []];
  for (let number = 0; number < rounds; number++) {
    const pin = { bundle: 'support', revision: 'r1', reason: 'measured' };
    const { id, waited } = await round(authority, sidecars, '/v1/pins', pin, 200);
    pinned.push(Math.max(...waited));
    const back = await round(authority, sidecars, `/v1/pins/${id}/remove`, { reason: 'measured' }, 403);
    unpinned.push(Math.max(...back.waited));
  }
  for (const sidecar of sidecars) await sidecar.stop();
  await tool.stop();
  bundles.gone();
  for (const times of [pinned, unpinned]) times.sort((one, other) => one - other);
  return {
    sidecars: count, pins: rounds, rules, p50_ms: share(pinned, 0.5), most_ms: pinned.at(-1),
    unpinned_p50_ms: share(unpinned, 0.5), unpinned_most_ms: unpinned.at(-1),
  };
}
