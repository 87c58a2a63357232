#!/usr/bin/env python3
"""What policy costs where there is much of it: 200 rules over the data of 2,000 agents beside the demo's, and a bundle with
10 MB of data.

    benches/policy/run.py --binary target/release/countersign

Decisions are measured by `countersign policy bench`: first asked and asked again, by one thread and by two. Loading is
measured as `countersign policy check` of the bundle, which does all that a sidecar does before it serves it, less the
same of a bundle with one agent: processor time, and the most memory that was resident.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True

ROOT = pathlib.Path(__file__).resolve().parents[2]
RULES, AGENTS = 200, 2000
DATA_BYTES = 10_000_000

CONFIGURATION = """
sidecar: { name: large, audience: "urn:example:countersign:large", tenants: [acme] }
listen: { agent: { tcp: 127.0.0.1:8690 } }
issuers:
  - { issuer: https://countersign.example, role: delegation, tenants: [acme] }
ledger: { dir: ledger }
policy:
  - { name: support, path: support, for: [orders] }
tools:
  orders:
    at: /orders
    upstream: https://orders.example
    identity: service_account
    credential: { bearer: { env: ORDERS_TOKEN } }
    facts:
      order:
        get: "/v1/orders/{order}"
        pick:
          placed_by: { at: /customer/id, principal: https://sso.example/realms/acme }
          status: { at: /status }
    actions:
      orders.read: { match: "GET /v1/orders/{order}", effect: read, resource: "orders/{order}" }
      refunds.create:
        match: "POST /v1/orders/{order}/refunds"
        effect: write
        resource: "orders/{order}"
        facts: [order]
        parameters:
          amount: { type: money, value: "body:/amount", currency: "body:/currency" }
"""

HEAD = """# Written by benches/policy/run.py: what a large team's policy looks like.
package countersign.teams.support

import data.countersign.lib.delegation

profile := data.countersign.teams.support.agents[input.agent.id]

allow contains {"code": "known_agent"} if {
	delegation.covers(input.action)
	input.action.name in profile.actions
}
"""

# Ten shapes, in turn: what rules of real policies look at.
RULES_OF = [
    'deny contains {{"code": "rule_{n}"}} if {{\n\tinput.action.name == "refunds.create"\n\tprofile.region == "region-{n}"\n\tinput.action.parameters.amount.minor > 9{n}00\n}}\n',
    'deny contains {{"code": "rule_{n}"}} if {{\n\tinput.action.effect == "write"\n\t"suspended-{n}" in profile.tags\n}}\n',
    'deny contains {{"code": "rule_{n}"}} if {{\n\tstartswith(input.action.resource, "orders/9{n}")\n\tnot "seniors" in input.user.groups\n}}\n',
    'deny contains {{"code": "rule_{n}"}} if {{\n\tinput.task.sensitivity == "high"\n\tprofile.level < {n} - 190\n}}\n',
    'deny contains {{"code": "rule_{n}"}} if {{\n\tsome hop in input.chain\n\thop.principal.id == "barred-{n}"\n}}\n',
    'deny contains {{"code": "rule_{n}"}} if {{\n\tinput.tenant == "tenant-{n}"\n\tinput.action.name == "refunds.create"\n}}\n',
    'deny contains {{"code": "rule_{n}"}} if {{\n\tinput.facts.order.status == "locked-{n}"\n}}\n',
    'deny contains {{"code": "rule_{n}"}} if {{\n\tinput.action.name == "refunds.create"\n\tprofile.daily_refunds[sprintf("%d", [{n}])] > 100\n}}\n',
    'approval contains {{"code": "rule_{n}"}} if {{\n\tinput.action.name == "refunds.create"\n\tprofile.level == {n} + 1000\n}}\n',
    'deny contains {{"code": "rule_{n}"}} if {{\n\tregex.match("^orders/{n}-[0-9]+$", input.action.resource)\n}}\n',
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=ROOT / "target/release/countersign", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=20_000, help="decisions of each row (%(default)s)")
    parser.add_argument("--keep", action="store_true", help="leave what was written, and say where")
    options = parser.parse_args()
    binary = options.binary.resolve()
    if not os.access(binary, os.X_OK):
        sys.exit(f"{binary} is missing (cargo build --release, or --binary PATH)")
    directory = pathlib.Path(tempfile.mkdtemp(prefix="policy-bench-"))
    try:
        large = write(directory / "large", RULES)
        print(f"## {RULES} rules, {AGENTS} agents\n", flush=True)
        bench(binary, large, options.rounds)
        print("\n## the demo's policies\n", flush=True)
        demo = write(directory / "demo", 0)
        shutil.rmtree(demo / "support")
        shutil.copytree(ROOT / "policies/orders", demo / "support")
        bench(binary, demo, options.rounds)
        print(f"\n## loading {DATA_BYTES / 1e6:.0f} MB of data\n", flush=True)
        load(binary, directory)
    finally:
        if options.keep:
            print(directory)
        else:
            shutil.rmtree(directory, ignore_errors=True)


def write(directory, rules, known=AGENTS):
    """A configuration and the directory of its one team: so many rules, and what it knows of its agents."""
    team = directory / "support"
    team.mkdir(parents=True)
    (directory / "countersign.yaml").write_text(CONFIGURATION)
    text = "\n".join([HEAD, *(RULES_OF[n % len(RULES_OF)].format(n=n) for n in range(rules))])
    (team / "support.rego").write_text(text)
    # Agent by agent: what this process once had resident counts as its children's.
    with (team / "data.json").open("w") as file:
        file.write('{"countersign": {"teams": {"support": {"agents": {')
        file.writelines(f"{', ' if n else ''}{json.dumps(f'agent-{n}')}: {json.dumps(agent(n))}" for n in range(known))
        file.write("}}}}}")
    (directory / "calls.yaml").write_text(calls())
    return directory


def agent(n):
    return {
        "actions": ["orders.read", "refunds.create"],
        "owner": f"team-{n % 40}@acme.example",
        "description": f"Agent {n} answers what customers of region {n % 7} ask about their orders, and refunds what they placed.",
        "region": f"eu-{n % 7}",
        "level": n % 5,
        "tags": [f"team-{n % 40}", f"cohort-{n % 11}"],
        "daily_refunds": {str(day): n % 30 for day in range(7)},
    }


def calls():
    """Five hundred refunds that differ, by agents that differ."""
    lines = ["cases:"]
    for n in range(500):
        lines += [f"  - name: call {n}",
                  f"    call: alice via agent-{n * 4} refunds.create orders/{n}",
                  f"    parameters: {{ amount: {n % 50 + 1}.{n % 100:02} USD }}",
                  "    facts: { order: { placed_by: $user, status: open } }",
                  "    expect: permit"]
    return "\n".join(lines) + "\n"


def bench(binary, directory, rounds):
    command = [binary, "policy", "bench", "--config", "countersign.yaml", "--cases", "calls.yaml", "--rounds", str(rounds)]
    subprocess.run(command, cwd=directory, check=True)


def load(binary, directory):
    """Seconds of processor time and MiB resident, beside the same with one agent."""
    much = DATA_BYTES // len(f'"agent-00000": {json.dumps(agent(10_000))}, ')
    small, large = write(directory / "small", 0, 1), write(directory / "much", 0, much)
    print(f"{(large / 'support/data.json').stat().st_size / 1e6:.1f} MB of JSON, the least of five:")
    (plain_cpu, plain_mib), (cpu, mib) = (min(check(binary, at) for _ in range(5)) for at in (small, large))
    print(f"processor {cpu - plain_cpu:.2f} s (with one agent {plain_cpu:.2f}), most resident {mib:.0f} MiB ({plain_mib:.0f})")


def check(binary, directory):
    process = subprocess.Popen([binary, "policy", "check", "--config", "countersign.yaml"], cwd=directory,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    told = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(told.decode(errors="replace"))
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
