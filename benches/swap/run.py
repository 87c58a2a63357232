#!/usr/bin/env python3
"""A policy's data document of 10 MB, loaded and swapped under load: what that costs, and whether a call waits for it.

Runs a sidecar on loopback under a fixed rate of calls. Rounds are interleaved, because machines are noisy: in one window
nothing changes, in the next one the document is replaced by another of the same size. Latency is counted from when a
request was due, so that what stands still for a moment shows in all that were due meanwhile. What a swap takes of the
processor is what the sidecar took in the one window more than in the other, by itself and in the process of the trial.

    cargo build --profile dist
    benches/swap/run.py                      # about two minutes
    benches/swap/run.py --megabytes 1 --rounds 3 --json

Needs what benches/compare needs but for HAProxy and Envoy: Python 3.11, Node.js 20, a C compiler, nginx.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import statistics
import sys
import tempfile
import threading
import time
import urllib.request

sys.dont_write_bytecode = True  # nothing is left beside the sources
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "compare"))

import machine
import peers
import sidecar
from load import Load, Mint
from machine import Failed, say

POLICY = """package countersign.teams.support

# As real data is used: what is known of one of many, by name.
allow contains {"code": "known"} if data.countersign.teams.support.accounts["a-000007"].tier in {"gold", "silver"}
"""
# One of the others that a large team has.
RULE = """
deny contains {{"code": "rule_{number}"}} if {{
	input.action.name == "orders.close_{number}"
	account := data.countersign.teams.support.accounts[input.user.id]
	account.limit < {number}
}}
"""
TICK = os.sysconf("SC_CLK_TCK")
LOOK = 0.02  # seconds between two looks at whether it decides by now


def main():
    options = arguments()
    directory = tempfile.mkdtemp(prefix="swap-", dir=sidecar.ROOT / "target")
    started = []
    try:
        result = measured(options, directory, started)
        print(json.dumps(result, indent=1) if options.json else text(result))
    except Failed as failure:
        sys.exit(f"swap: {failure}")
    finally:
        for process in reversed(started):
            process.stop()
        shutil.rmtree(directory, ignore_errors=True)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", help="the sidecar (target/dist/countersign, or target/release/countersign)")
    parser.add_argument("--megabytes", type=float, default=10.0, help="of the document (%(default)s)")
    parser.add_argument("--rules", type=int, default=200, help="that the policy has beside (%(default)s)")
    parser.add_argument("--rate", type=float, default=500, help="calls a second (%(default)s)")
    parser.add_argument("--connections", type=int, default=16, help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long a window is (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of windows (%(default)s)")
    parser.add_argument("--core", type=int, help="the one core of the sidecar; the others are for the rest")
    parser.add_argument("--json", action="store_true", help="everything that was measured")
    options = parser.parse_args()
    built = [sidecar.ROOT / "target" / profile / "countersign" for profile in ("dist", "release")]
    options.binary = options.binary or next((path for path in built if path.exists()), built[0])
    return options


def document(megabytes, turn):
    """So many accounts that the text has that size; each turn is another document."""
    accounts, size, number = {}, 0, 0
    tiers = ("gold", "silver")
    while size < megabytes * 1e6:
        # Long enough that so many megabytes are fewer values than a document may have.
        note = f"Account {number} of the region of turn {turn}, as the directory has it; nobody reads this."
        account = {"tier": tiers[(number + turn) % 2], "limit": number * 100 + turn, "note": note}
        name = f"a-{number:06}"
        accounts[name] = account
        size += len(name) + len(json.dumps(account, separators=(",", ":"))) + 4
        number += 1
    return json.dumps({"countersign": {"teams": {"support": {"accounts": accounts}}}}, separators=(",", ":"))


class Swapped:
    """A sidecar whose policy has a large document."""

    def __init__(self, options, directory, tool, started):
        self.options = options
        collector = sidecar.Collector(directory, tool, None)
        started += [collector.process] if collector.process else []
        Prepared.document = document(options.megabytes, 0)
        Prepared.rules = POLICY + "".join(RULE.format(number=number) for number in range(options.rules))
        self.sidecar = Prepared(sidecar.binary_at(options.binary), directory, "swap", tool, options.core, collector, policy="plain")
        started.append(self.sidecar.process)
        self.turn = 0

    def taken(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.sidecar.health}/metrics", timeout=5) as page:
            found = re.search(r'countersign_reload_total\{outcome="taken"\} (\d+)', page.read().decode())
        return int(found[1]) if found else 0

    def swap(self, patience):
        """Replaces the document; how many seconds passed until calls are decided by it."""
        self.turn += 1
        before = self.taken()
        place = self.sidecar.directory / "policies/support/data.json"
        beside = self.sidecar.directory / "next.json"
        beside.write_text(document(self.options.megabytes, self.turn))
        began = time.monotonic()
        os.rename(beside, place)
        while time.monotonic() < began + patience:
            if self.taken() > before:
                return time.monotonic() - began
            time.sleep(LOOK)
        raise Failed(f"not taken within {patience:g} s: {self.sidecar.process.log.read_text(errors='replace')[-2000:]}")


class Prepared(sidecar.Sidecar):
    """The comparison's sidecar, with this policy."""

    document, rules = "", POLICY

    def write(self, keys, tool_port, policy):
        super().write(keys, tool_port, policy)
        support = self.directory / "policies/support"
        (support / "plain.rego").write_text(self.rules)
        place = support / "data.json"
        place.write_text(self.document)
        place.chmod(0o600)


def processor(process):
    """The seconds of processor time that the sidecar took, and that the processes took which it started and that ended."""
    fields = pathlib.Path(f"/proc/{process.process.pid}/stat").read_text().rpartition(")")[2].split()
    return tuple(sum(map(int, fields[first:first + 2])) / TICK for first in (11, 13))


class Peak:
    """The most memory that is resident while this looks, in MiB."""

    def __init__(self, process):
        self.process, self.most, self.done = process, 0.0, threading.Event()
        self.thread = threading.Thread(target=self.look)

    def look(self):
        while not self.done.wait(LOOK):
            try:
                self.most = max(self.most, self.process.resident_mib())
            except OSError:
                continue  # a child that just ended

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()


def measured(options, directory, started):
    tool = peers.tool(directory, None)
    started.append(tool.process)
    load, mint = Load(directory, None), Mint(directory, None)
    tokens = mint.tokens(1)
    swapped = Swapped(options, directory, tool.port, started)
    process = swapped.sidecar.process
    run = lambda: load.run(swapped.sidecar.port, "read", "/orders", tokens, options.connections, options.seconds, options.rate)
    run()  # whatever a first call costs is no part of it
    quiet, during, took, peaks, spent = [], [], [], [], []
    idle = process.resident_mib()
    for number in range(options.rounds):
        say(f"round {number + 1} of {options.rounds}")
        before = processor(process)
        quiet.append(run())
        between = processor(process)
        window = {}
        loader = threading.Thread(target=lambda: window.update(run()))
        with Peak(process) as peak:
            loader.start()
            time.sleep(options.seconds * 0.1)
            took.append(swapped.swap(options.seconds * 0.8))
            loader.join()
        if not window:
            raise Failed("the loader failed during a swap")
        during.append(window)
        peaks.append(peak.most)
        after = processor(process)
        spent.append([(end - middle) - (middle - start) for start, middle, end in zip(before, between, after)])
    return {
        "machine": machine.description(), "version": sidecar.version(options.binary), "megabytes": options.megabytes,
        "rules": options.rules, "processor_seconds": [one[0] for one in spent], "trial_seconds": [one[1] for one in spent],
        "rate": options.rate, "ready_ms": swapped.sidecar.ready_ms, "idle_mib": idle, "after_mib": process.resident_mib(),
        "peak_mib": max(peaks), "seconds_until_taken": took, "quiet": quiet, "during": during,
    }


def text(result):
    lines = [
        f"{result['version']} on {result['machine']}",
        f"a data document of {result['megabytes']:g} MB, {result['rules']} rules, {result['rate']:g} calls a second",
        f"ready after {result['ready_ms']:.0f} ms; {result['idle_mib']:.0f} MiB resident, at most {result['peak_mib']:.0f} MiB"
        f" while it is swapped (its trial's process counted), {result['after_mib']:.0f} MiB at the end",
        f"decides {statistics.median(result['seconds_until_taken']):.1f} s after it was written"
        " (files are looked at every two)",
        f"a swap takes {statistics.median(result['processor_seconds']):.2f} s of the processor, and"
        f" {statistics.median(result['trial_seconds']):.2f} s in its trial's process", "",
        f"{'':16}{'p50':>10}{'p99':>10}{'p99.9':>10}{'slowest':>10}   (microseconds, median of the windows)",
    ]
    for name, windows in (("nothing changes", result["quiet"]), ("swapped", result["during"])):
        cells = (statistics.median(window[key] for window in windows) for key in ("p50", "p99", "p999", "max"))
        lines.append(f"{name:16}" + "".join(f"{cell:>10.0f}" for cell in cells))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
