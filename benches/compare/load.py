"""Calls and tokens: what is sent, how often, and what came of it."""

import json
import pathlib
import subprocess
import urllib.error
import urllib.request

from machine import Failed, pinned
from peers import needs

HERE = pathlib.Path(__file__).resolve().parent

# No two calls of a run are the same, unless they are to be: a decision that was made before need not be made again.
# Refunds go to a hundred orders, so that what the sidecar reads of an order is mostly known, as for an agent at work.
CALLS = {
    "read": ("GET", "/v1/orders/#", "-"),
    "read again": ("GET", "/v1/orders/17", "-"),
    "refund": ("POST", "/v1/orders/%/refunds", '{"amount": "@", "currency": "USD"}'),
    "refund again": ("POST", "/v1/orders/17/refunds", '{"amount": "20.00", "currency": "USD"}'),
}


class Load:
    """The compiled loader, on its core."""

    def __init__(self, directory, core):
        self.program = compiled(directory, "load.c", "load", [])
        self.core = core

    def run(self, port, call, prefix, tokens, connections, seconds, rate=0, reuse=True):
        method, path, body = CALLS[call]
        command = [self.program, port, method, prefix + path, body, tokens, connections, seconds, rate, int(reuse)]
        out = subprocess.run(pinned([str(part) for part in command], self.core), capture_output=True, text=True)
        if out.returncode:
            raise Failed(f"the loader failed: {out.stderr.strip()}")
        result = json.loads(out.stdout)
        if result["refused"]:
            raise Failed(f"{result['refused']} of {result['requests']} calls were refused: {result['refusal']}")
        if result["broken"] or result["unanswered"]:
            raise Failed(f"{result['broken']} connections broke, {result['unanswered']} calls got no answer")
        if not result["measured"]:
            raise Failed(f"nothing was answered within {seconds:g} s, of which the first 0.2 do not count")
        return result


def check_that_it_checks(name, port, tokens):
    """A proxy that is measured takes a good token and refuses one with a broken signature; else it is no comparison."""
    token = pathlib.Path(tokens).read_text().splitlines()[0]
    middle = len(token) - 40
    broken = token[:middle] + ("A" if token[middle] != "A" else "B") + token[middle + 1:]
    told = [status(port, one) for one in (token, broken)]
    if told[0] != 200 or told[1] not in (401, 403):
        raise Failed(f"{name} answers {told[0]} to a good token and {told[1]} to a broken one")


def status(port, token):
    request = urllib.request.Request(f"http://127.0.0.1:{port}/orders/v1/orders/17", headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as refused:
        return refused.code


def slow_disk(directory):
    """The library that slows fsync when it is preloaded."""
    return compiled(directory, "fsync.c", "fsync.so", ["-shared", "-fPIC", "-ldl"])


def compiled(directory, source, name, options):
    out = pathlib.Path(directory) / name
    compiler = needs("cc", "apt-get install gcc libc6-dev")
    subprocess.run([compiler, "-O2", "-o", out, HERE / source, *options], check=True)
    return out


class Mint:
    """Makes tokens, on the core of the load."""

    def __init__(self, directory, core):
        self.directory, self.core, self.count = directory, core, 0
        self.node = needs("node", "Node.js 20 or later")
        self.call("keys", directory)

    def call(self, *arguments):
        command = pinned([self.node, HERE / "mint.mjs", *arguments], self.core)
        subprocess.run([str(part) for part in command], check=True)

    def tokens(self, count):
        """A file of new tokens."""
        self.count += 1
        path = pathlib.Path(self.directory) / f"tokens-{self.count}"
        self.call("tokens", self.directory, count, path)
        return path
