#!/usr/bin/env python3
"""Where the sidecar's CPU goes: `perf record` of it under one kind of call (`profile.py refund`), in perf.data.

    CARGO_PROFILE_RELEASE_STRIP=none CARGO_PROFILE_RELEASE_DEBUG=line-tables-only \\
        RUSTFLAGS="-C force-frame-pointers=yes" cargo build --release --target-dir target/profile
    benches/compare/profile.py refund --binary target/profile/release/countersign
    perf script -i perf.data | inferno-collapse-perf | inferno-flamegraph > flame.svg    # cargo install inferno
    perf report -i perf.data --no-children --percent-limit 1                             # or as a list

Frame pointers, because unwinding by debug information loses the deep stacks of async code.
"""

import argparse
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True

import peers
import sidecar
from load import CALLS, Load, Mint
from machine import Failed, say


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("call", choices=CALLS)
    parser.add_argument("--binary", required=True, help="a build with symbols and frame pointers")
    parser.add_argument("--policy", choices=sidecar.POLICIES, default="demo")
    parser.add_argument("--new-tokens", action="store_true", help="another token in each call")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--out", default="perf.data")
    options = parser.parse_args()
    parent = sidecar.ROOT / "target"
    directory = tempfile.mkdtemp(prefix="profile-", dir=parent if parent.is_dir() else None)
    started = []
    try:
        profile(options, directory, started)
    except Failed as failure:
        sys.exit(f"profile: {failure}")
    finally:
        for process in reversed(started):
            process.stop()
        shutil.rmtree(directory, ignore_errors=True)


def profile(options, directory, started):
    perf = peers.needs("perf", "apt-get install linux-perf")
    load, mint = Load(directory, 1), Mint(directory, 1)
    tool = peers.tool(directory, 1)
    started.append(tool.process)
    collector = sidecar.Collector(directory, tool.port, 1)
    started += [collector.process] if collector.process else []
    binary = sidecar.binary_at(options.binary)
    subject = sidecar.Sidecar(binary, directory, "profiled", tool.port, 0, collector, options.policy)
    started.append(subject.process)
    tokens = mint.tokens(int(6000 * options.seconds) if options.new_tokens else 1)
    out = pathlib.Path(options.out).resolve()
    command = [perf, "record", "-F", "999", "-e", "cpu-clock", "-g", "-o", out, "-p", str(subject.process.process.pid)]
    recording = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(0.5)
    result = load.run(subject.port, options.call, "/orders", tokens, 64, options.seconds, reuse=not options.new_tokens)
    recording.send_signal(signal.SIGINT)
    recording.wait(60)
    say(f"{result['requests'] / result['seconds']:.0f} calls/s; samples in {out}")


if __name__ == "__main__":
    main()
