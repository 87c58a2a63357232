#!/usr/bin/env python3
"""How many recorded decisions a second `countersign policy replay` makes again.

    benches/policy/replay.py --binary target/release/countersign [--against OTHER] [--keep DIR]

A sidecar with the demo's policies and its own catalogue answers so many refunds that all differ (another order and another
amount in each), in a ledger that it writes as ever. That ledger is then replayed by the policies that decided; by the same
with a rule that looks at the clock, so that each decision is evaluated; and by one that allows everything, which leaves
what is around the evaluation. On all cores and on one; the most of the rounds, with the processor time that a decision
took in that round, on all cores, and the most memory that was resident.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benches/compare"))

import peers
import sidecar
from load import Load, Mint
from machine import Failed, say


# What looks at the clock is never the same question again.
CLOCK = '\ndeny contains {"code": "before_there_were_clocks"} if input.now_ns < 0\n'


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=ROOT / "target/release/countersign", type=pathlib.Path)
    parser.add_argument("--against", type=pathlib.Path, help="an older build, asked in the same rounds")
    parser.add_argument("--decisions", type=int, default=20_000, help="refunds on record, at least (%(default)s)")
    parser.add_argument("--tokens", type=int, default=1, help="tokens they are made with (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keep", type=pathlib.Path, help="leave the ledger here; one that is there is replayed")
    options = parser.parse_args()
    parent = ROOT / "target"
    directory = pathlib.Path(tempfile.mkdtemp(prefix="replay-", dir=parent if parent.is_dir() else None))
    try:
        kept = (options.keep or directory / "kept").resolve()
        if not kept.exists():
            record(options, directory, kept)
        measure(options, kept)
    except Failed as failure:
        sys.exit(f"replay: {failure}")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def record(options, directory, kept):
    """A ledger of so many refunds, with its configuration, at `kept`."""
    load, mint, started = Load(directory, None), Mint(directory, None), []
    try:
        tool = peers.tool(directory, None)
        started.append(tool.process)
        collector = sidecar.Collector(directory, tool.port, None)
        started += [collector.process] if collector.process else []
        subject = sidecar.Sidecar(sidecar.binary_at(options.binary), directory, "recorded", tool.port, None, collector)
        started.append(subject.process)
        tokens, calls = mint.tokens(options.tokens), 0
        while calls < options.decisions:
            calls += load.run(subject.port, "refund", "/orders", tokens, 64, 2)["requests"]
            say(f"{calls} refunds")
        subject.process.stop()
        shutil.move(subject.directory, kept)
        (kept / "plain").mkdir()
        (kept / "plain/plain.rego").write_text(sidecar.PLAIN_ALLOW)
        shutil.copytree(kept / "policies/support", kept / "clock")
        with (kept / "clock/orders.rego").open("a") as policy:
            policy.write(CLOCK)
    finally:
        for process in reversed(started):
            process.stop()


def measure(options, kept):
    size = sum(file.stat().st_size for file in (kept / "ledger").iterdir() if file.is_file() and file.name != "reserve")
    cores = sorted(os.sched_getaffinity(0))
    print(f"{size / 1e6:.0f} MB of ledger, {len(cores)} cores; decisions made again in a second, the most of {options.rounds} rounds")
    print("\n|  | all cores | µs each | MiB | one core |\n|---|--:|--:|--:|--:|")
    binaries = [("", options.binary)] + ([("before: ", options.against)] if options.against else [])
    ways = {
        "the policies that decided": ["--config", "countersign.yaml"],
        "each evaluated": ["org=policies/org", "support=clock:orders", "--catalogue", "countersign.yaml", "--from", "ledger"],
        "plain allow": ["support=plain:orders", "--catalogue", "countersign.yaml", "--from", "ledger"],
    }
    for way, arguments in ways.items():
        best = {}
        for _ in range(options.rounds):
            for name, binary in binaries:
                for one, at in (("all", cores), ("one", cores[:1])):
                    found = replay(binary.resolve(), kept, arguments, at)
                    of = best.setdefault(name, {})
                    of[one] = max(of.get(one, found), found)
        for name, found in best.items():
            (rate, cpu, mib), (alone, _, _) = found["all"], found["one"]
            print(f"| {name}{way} | {rate:.0f} | {cpu:.0f} | {mib:.0f} | {alone:.0f} |", flush=True)


def replay(binary, kept, arguments, cores):
    """Decisions a second, its start counted too; processor time of each in microseconds; and MiB."""
    command = [binary, "policy", "replay", *arguments, "--json"]
    began = time.monotonic()
    process = subprocess.Popen(command, cwd=kept, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               preexec_fn=lambda: os.sched_setaffinity(0, cores))
    told = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    took = time.monotonic() - began
    if status:
        raise Failed(f"the replay failed: {process.stderr.read().decode(errors='replace')}")
    compared = int(told.split(b'"compared":')[1].split(b",")[0].strip(b" }\n"))
    return compared / took, (usage.ru_utime + usage.ru_stime) / compared * 1e6, usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
