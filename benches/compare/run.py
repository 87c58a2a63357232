#!/usr/bin/env python3
"""Countersign beside a plain nginx proxy, in the same run, on loopback.

Starts everything itself and stops it: an nginx that is the tool, an nginx that only proxies, and a sidecar with
everything on (token, chain, Rego, durable record). Rounds are interleaved, because machines are noisy; what counts is
the ratio to nginx, above all in CPU per request. Needs nginx and wrk, and a release build.

    cargo build --release && benches/compare/run.py [--seconds 5] [--rounds 3] [--connections 1,64]
"""

import argparse, json, os, pathlib, re, shutil, signal, socket, statistics, subprocess, sys, tempfile, time, urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
TICK = os.sysconf("SC_CLK_TCK")

UPSTREAM = """
worker_processes 1; daemon off; pid {dir}/tool.pid; error_log {dir}/tool.log crit;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000;
  server {{ listen 127.0.0.1:{tool};
    location / {{ default_type application/json;
      return 200 '{{"id":"17","customer":{{"id":"alice"}},"status":"open","total":{{"amount":"420.00","currency":"USD"}}}}'; }} }}
}}
"""
PROXY = """
worker_processes 2; daemon off; pid {dir}/proxy.pid; error_log {dir}/proxy.log crit;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000;
  upstream tool {{ server 127.0.0.1:{tool}; keepalive 256; keepalive_requests 100000000; }}
  server {{ listen 127.0.0.1:{proxy};
    location / {{ proxy_pass http://tool; proxy_http_version 1.1; proxy_set_header Connection ""; }} }}
}}
"""
WRITE = """
wrk.method = "POST"
wrk.body = '{"amount": "20.00", "currency": "USD"}'
wrk.headers["Content-Type"] = "application/json"
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def family(pid):
    """A process and its children."""
    pids = [pid]
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        pids += [int(child) for child in task.read_text().split()]
    return pids


def cpu_seconds(pid):
    total = 0
    for each in family(pid):
        fields = pathlib.Path(f"/proc/{each}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def resident_mb(pid):
    return sum(int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{each}/status").read_text())[1]) for each in family(pid)) / 1024


def wait_for(port, deadline=20):
    end = time.time() + deadline
    while time.time() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    sys.exit(f"nothing listens on {port}")


def load(url, token, seconds, connections, script):
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-H", f"Authorization: Bearer {token}"]
    out = subprocess.run(command + (["-s", script] if script else []) + [url], capture_output=True, text=True, check=True).stdout
    micro = lambda text: float(re.match(r"[\d.]+", text)[0]) * {"us": 1, "ms": 1e3, "s": 1e6}[re.search(r"[a-z]+$", text)[0]]
    percentile = lambda name: micro(re.search(rf"^\s+{name}%\s+(\S+)", out, re.M)[1])
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    errors = re.search(r"Socket errors: (.*)", out)
    if bad or errors:
        sys.exit(f"{url}: {bad[0] if bad else errors[0]}")
    return {"requests": int(re.search(r"(\d+) requests in", out)[1]), "p50": percentile(50), "p99": percentile(99)}


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seconds", type=int, default=5)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--connections", default="1,64")
    arguments.add_argument("--binary", default=str(ROOT / "target/release/countersign"))
    arguments.add_argument("--json", action="store_true")
    options = arguments.parse_args()
    for tool in ("nginx", "wrk"):
        if not shutil.which(tool):
            sys.exit(f"{tool} is not installed")

    started = []
    directory = pathlib.Path(tempfile.mkdtemp(prefix="countersign-compare-"))
    try:
        ports = {"tool": free_port(), "proxy": free_port(), "agent": free_port(), "health": free_port()}
        for name, text in (("tool", UPSTREAM), ("proxy", PROXY)):
            file = directory / f"{name}.conf"
            file.write_text(text.format(dir=directory, **ports))
            started.append(subprocess.Popen(["nginx", "-c", str(file), "-p", str(directory)], stderr=subprocess.DEVNULL))
        nginx = started[-1]

        demo = directory / "demo"
        issuing = subprocess.Popen([options.binary, "demo", "--serve", "--data", str(demo)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        started.append(issuing)
        token_file = None
        for _ in range(600):
            found = sorted(demo.glob("tokens/*.jwt"))
            token_file = next((file for file in found if "support" in file.name), found[0] if found else None)
            if token_file:
                break
            time.sleep(0.1)
        if not token_file:
            sys.exit("the demo made no token")

        config = (demo / "countersign.yaml").read_text()
        config = re.sub(r"tcp: 127\.0\.0\.1:\d+", f"tcp: 127.0.0.1:{ports['agent']}", config, count=1)
        config = re.sub(r"health: \{ tcp: 127\.0\.0\.1:\d+ \}", f"health: {{ tcp: 127.0.0.1:{ports['health']} }}", config)
        config = re.sub(r"upstream: http://127\.0\.0\.1:\d+", f"upstream: http://127.0.0.1:{ports['tool']}", config)
        config = config.replace("ledger: { dir: ledger }", "ledger: { dir: bench-ledger, key: bench-ledger.key }")
        (demo / "bench.yaml").write_text(config)
        (demo / "bench.yaml").chmod(0o600)
        sidecar = subprocess.Popen([options.binary, "sidecar", "--config", str(demo / "bench.yaml")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        started.append(sidecar)
        for name in ("tool", "proxy", "agent", "health"):
            wait_for(ports[name])
        time.sleep(1.5)
        idle = {"nginx": resident_mb(nginx.pid), "countersign": resident_mb(sidecar.pid)}

        write = directory / "write.lua"
        write.write_text(WRITE)
        read_path, write_path = "/v1/orders/17", "/v1/orders/17/refunds"
        subjects = [
            ("direct", None, f"http://127.0.0.1:{ports['tool']}{read_path}", None),
            ("nginx", nginx.pid, f"http://127.0.0.1:{ports['proxy']}{read_path}", None),
            ("countersign read", sidecar.pid, f"http://127.0.0.1:{ports['agent']}/orders{read_path}", None),
            ("countersign refund", sidecar.pid, f"http://127.0.0.1:{ports['agent']}/orders{write_path}", str(write)),
        ]
        results = {}
        for connections in [int(text) for text in options.connections.split(",")]:
            for _ in range(options.rounds):
                for name, pid, url, script in subjects:
                    token = token_file.read_text().strip()
                    before = cpu_seconds(pid) if pid else 0
                    result = load(url, token, options.seconds, connections, script)
                    result["cpu"] = (cpu_seconds(pid) - before) / result["requests"] * 1e6 if pid else 0
                    results.setdefault((connections, name), []).append(result)
        busy = {"nginx": resident_mb(nginx.pid), "countersign": resident_mb(sidecar.pid)}
        ledger = sum(file.stat().st_size for file in (demo / "bench-ledger").iterdir() if file.name != "reserve")
        calls = sum(one["requests"] for (_, name), all in results.items() if name.startswith("countersign") for one in all)
        report(results, idle, busy, ledger / max(calls, 1), options)
    finally:
        for process in reversed(started):
            process.send_signal(signal.SIGTERM)
        for process in reversed(started):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
        shutil.rmtree(directory, ignore_errors=True)


def report(results, idle, busy, ledger_bytes, options):
    median = lambda rows, key: statistics.median(row[key] for row in rows)
    rows = []
    for (connections, name), rounds in results.items():
        row = {"connections": connections, "name": name, "per_second": median(rounds, "requests") / options.seconds}
        row |= {key: median(rounds, key) for key in ("p50", "p99", "cpu")}
        nginx = results[(connections, "nginx")]
        row["cpu_to_nginx"] = row["cpu"] / median(nginx, "cpu") if row["cpu"] else 0
        rows.append(row)
    memory = {name: {"idle_mb": idle[name], "loaded_mb": busy[name]} for name in idle}
    if options.json:
        print(json.dumps({"rows": rows, "memory": memory, "ledger_bytes_per_call": ledger_bytes}, indent=2))
        return
    print(f"{'connections':>11}  {'':<20}{'calls/s':>10}{'p50 us':>10}{'p99 us':>10}{'CPU us/call':>13}{'to nginx':>10}")
    for row in rows:
        cpu = f"{row['cpu']:.1f}" if row["cpu"] else "-"
        ratio = f"{row['cpu_to_nginx']:.2f}" if row["cpu"] else "-"
        print(f"{row['connections']:>11}  {row['name']:<20}{row['per_second']:>10.0f}{row['p50']:>10.0f}{row['p99']:>10.0f}{cpu:>13}{ratio:>10}")
    for name, sizes in memory.items():
        print(f"{name}: {sizes['idle_mb']:.1f} MB resident idle, {sizes['loaded_mb']:.1f} MB after the load")
    print(f"ledger: {ledger_bytes:.0f} bytes a call")


if __name__ == "__main__":
    main()
