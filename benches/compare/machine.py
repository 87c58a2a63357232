"""Processes of the comparison: started on their cores, measured from /proc, and stopped."""

import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

TICK = os.sysconf("SC_CLK_TCK")


def say(text=""):
    """Progress, for the person who waits; results go to stdout."""
    print(text, file=sys.stderr, flush=True)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def pinned(command, core):
    return command if core is None else ["taskset", "-c", str(core), *command]


class Process:
    """One process that this run started."""

    def __init__(self, command, core, log, environment=None):
        self.log = pathlib.Path(log)
        with open(self.log, "ab") as output:
            self.started = time.monotonic()
            self.process = subprocess.Popen(
                pinned([str(part) for part in command], core),
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env={**os.environ, **(environment or {})},
            )

    def wait_for(self, port, deadline=20):
        """Until it listens; how long that took, in milliseconds."""
        while time.monotonic() < self.started + deadline:
            if self.process.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return (time.monotonic() - self.started) * 1e3
            except OSError:
                time.sleep(0.001)
        raise Failed(f"nothing listens on {port}: {self.log.read_text(errors='replace')[-2000:]}")

    def family(self):
        """It and its descendants, by number."""
        found, ahead = [], [self.process.pid]
        while ahead:
            pid = ahead.pop()
            found.append(pid)
            for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
                try:
                    ahead += [int(child) for child in task.read_text().split()]
                except OSError:
                    continue
        return found

    def cpu_seconds(self):
        """User and system time of all of them since their start."""
        total = 0
        for pid in self.family():
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICK

    def resident_mib(self):
        total = 0
        for pid in self.family():
            found = re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())
            total += int(found[1]) if found else 0
        return total / 1024

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Failed(Exception):
    """A part of the comparison that cannot be had, in words for a person."""


class Core:
    """How busy one core is with everybody's work: what is not the proxy's is noise."""

    def __init__(self, core):
        self.name = "cpu" if core is None else f"cpu{core}"

    def busy_seconds(self):
        for line in pathlib.Path("/proc/stat").read_text().splitlines():
            fields = line.split()
            if fields[0] == self.name:
                user, nice, system, _, _, irq, softirq, steal = map(int, fields[1:9])
                return (user + nice + system + irq + softirq + steal) / TICK
        return 0.0


def description():
    """The machine, in a line."""
    cpu = re.search(r"model name\s*:\s*(.*)", pathlib.Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text())
    return (f"{os.cpu_count()} cores of {cpu[1] if cpu else 'an unknown processor'}, {int(memory[1]) / 2**20:.0f} GiB, "
            f"Linux {'.'.join(os.uname().release.split('.')[:2])}")


def fsync_microseconds(directory, rounds=200):
    """What the disk under `directory` takes to make one line durable: median and 99th percentile."""
    path = pathlib.Path(directory) / "fsync-probe"
    took = []
    with open(path, "wb") as file:
        for _ in range(rounds):
            file.write(b"x" * 1500)
            file.flush()
            before = time.monotonic()
            os.fdatasync(file.fileno())
            took.append((time.monotonic() - before) * 1e6)
    path.unlink()
    took.sort()
    return {"p50": took[len(took) // 2], "p99": took[int(len(took) * 0.99)]}
