"""Countersign with everything on: its configuration as an operator writes it, and the collector its traces go to."""

import json
import os
import pathlib
import shutil
import subprocess
import time
import urllib.error
import urllib.request

from machine import Failed, Process, free_port

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROTEL = ROOT / "tests/parts/otlp/packages/rotel/rotel-agent"

PLAIN_ALLOW = 'package countersign.teams.support\n\nallow contains {"code": "everything"}\n'

# The demo's own, with keys from a file.
CONFIGURATION = """
sidecar: {{ name: compare, audience: "urn:example:countersign:support", tenants: [acme] }}
listen:
  agent: {{ tcp: 127.0.0.1:{port}, bearer: all }}
  health: {{ tcp: 127.0.0.1:{health} }}
issuers:
  - {{ issuer: https://countersign.example, role: delegation, tenants: [acme], keys: {{ file: keys.json }} }}
  - issuer: https://sso.example/realms/acme
    role: subject
    tenants: [acme]
    keys: {{ file: keys.json }}
    entitlements: {{ from: groups, map: {{ customers: [orders.read, refunds.create] }} }}
agents:
  - id: support-v2
    issuer: https://countersign.example
    owner: dana@acme.example
    actions: [orders.read, refunds.create]
    tenants: [acme]
policy:
{policy}
ledger: {{ dir: ledger }}
tools:
  orders:
    at: /orders
    upstream: http://127.0.0.1:{tool}
    identity: service_account
    credential: {{ bearer: {{ file: credential }} }}
    facts:
      order:
        get: "/v1/orders/{{order}}"
        ttl: 10s
        timeout: 2s
        pick:
          placed_by: {{ at: /customer/id, principal: "https://sso.example/realms/acme" }}
          status: {{ at: /status }}
    actions:
      orders.read:
        match: "GET /v1/orders/{{order}}"
        effect: read
        resource: "orders/{{order}}"
      refunds.create:
        match: "POST /v1/orders/{{order}}/refunds"
        effect: write
        resource: "orders/{{order}}"
        facts: [order]
        parameters:
          amount: {{ type: money, value: "body:/amount", currency: "body:/currency" }}
"""

POLICIES = {
    "demo": "  - { name: org, path: policies/org }\n  - { name: support, path: policies/support, for: [orders] }",
    "plain": "  - { name: support, path: policies/support, for: [orders] }",
}


class Collector:
    """A real OTLP receiver where there is one; otherwise the tool takes the traces and throws them away."""

    def __init__(self, directory, tool_port, core):
        self.process = None
        if ROTEL.exists():
            port = free_port()
            command = [ROTEL, "start", "--exporter", "blackhole", "--otlp-http-endpoint", f"127.0.0.1:{port}",
                       "--otlp-grpc-endpoint", f"127.0.0.1:{free_port()}", "--pid-file", f"{directory}/rotel.pid",
                       "--log-file", f"{directory}/rotel.log"]
            self.process = Process(command, core, f"{directory}/rotel.out")
            self.process.wait_for(port)
            self.name = "rotel"
        else:
            port = tool_port
            self.name = "the tool (no rotel; `.ci/run parts` installs it)"
        self.url = f"http://127.0.0.1:{port}"


class Sidecar:
    """A running sidecar on a ledger of its own."""

    def __init__(self, binary, directory, name, tool_port, core, collector, policy="demo", preload=None, events=False):
        self.binary, self.directory = binary, pathlib.Path(directory) / name
        self.port, self.health = free_port(), free_port()
        self.idle_mib = None
        self.write(directory, tool_port, policy)
        environment = {
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{collector.url}/v1/traces",
            "OTEL_TRACES_SAMPLER": "traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": "0.01",
        }
        if events:
            environment["OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"] = f"{collector.url}/v1/logs"
        if preload:
            environment |= {"LD_PRELOAD": str(preload[0]), "COMPARE_FSYNC_US": str(preload[1])}
        command = [binary, "sidecar", "--config", self.directory / "countersign.yaml"]
        self.process = Process(command, core, f"{directory}/{name}.out", environment)
        self.process.wait_for(self.port)
        self.ready_ms = self.until_ready()

    def write(self, keys, tool_port, policy):
        self.directory.mkdir(mode=0o700)
        for place in ("ledger", "policies", "policies/org", "policies/support"):
            (self.directory / place).mkdir(mode=0o700)
        if policy == "demo":
            shutil.copy(ROOT / "policies/org/org.rego", self.directory / "policies/org")
            shutil.copy(ROOT / "policies/orders/orders.rego", self.directory / "policies/support")
        else:
            (self.directory / "policies/support/plain.rego").write_text(PLAIN_ALLOW)
        shutil.copy(f"{keys}/keys.json", self.directory)
        (self.directory / "credential").write_text("the-tools-own-credential\n")
        text = CONFIGURATION.format(port=self.port, health=self.health, tool=tool_port, policy=POLICIES[policy])
        (self.directory / "countersign.yaml").write_text(text)
        for path in self.directory.rglob("*"):
            path.chmod(0o700 if path.is_dir() else 0o600)

    def until_ready(self):
        """Milliseconds from its start until `/readyz` says so."""
        while time.monotonic() < self.process.started + 20:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.health}/readyz", timeout=1).read()
                return (time.monotonic() - self.process.started) * 1e3
            except (OSError, urllib.error.URLError):
                time.sleep(0.001)
        raise Failed(f"the sidecar is not ready: {self.process.log.read_text(errors='replace')[-2000:]}")

    def holds(self, calls):
        """Stops it and sees that its ledger is whole and has two records of each call: nothing was skipped for speed."""
        size = self.ledger_bytes()
        self.process.stop()
        command = [self.binary, "audit", "verify", "--json", "--from", self.directory / "ledger"]
        told = subprocess.run(command, capture_output=True, text=True)
        records = json.loads(told.stdout)["report"]["records"] if told.returncode == 0 else 0
        if records < 2 * calls:
            raise Failed(f"the ledger of {self.directory.name} has {records} records of {calls} calls: {told.stdout}{told.stderr}")
        return size / calls

    def ledger_bytes(self):
        return sum(file.stat().st_size for file in (self.directory / "ledger").iterdir() if file.name != "reserve")


def starts(binary, directory, tool_port, core, collector, times):
    """How long a sidecar takes until it is ready, in milliseconds, each time."""
    took = []
    for number in range(times):
        sidecar = Sidecar(binary, directory, f"start-{number}", tool_port, core, collector)
        took.append(sidecar.ready_ms)
        sidecar.process.stop()
    return took


def binary_at(path):
    path = pathlib.Path(path)
    if not os.access(path, os.X_OK):
        raise Failed(f"{path} is missing (cargo build --profile dist, or --binary PATH)")
    return path


def version(binary):
    return subprocess.run([binary, "--version"], capture_output=True, text=True).stdout.strip()
