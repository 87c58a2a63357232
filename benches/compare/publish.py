#!/usr/bin/env python3
"""Puts a comparison into README.md and docs/performance.md, between their marks, and draws the chart of both.

    benches/compare/run.py --full --json > result.json && benches/compare/publish.py result.json
"""

import json
import pathlib
import sys

sys.dont_write_bytecode = True

import chart
import report

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHORT = ("nginx", "HAProxy, ES256 and rules", "Envoy, JWT cache and RBAC", "Envoy, ES256 and RBAC",
         "Countersign, plain allow", "Countersign", "Countersign refund")


def main(path):
    result = json.loads(pathlib.Path(path).read_text())
    (ROOT / "docs/images").mkdir(exist_ok=True)
    (ROOT / "docs/images/cost.svg").write_text(chart.svg(result) + "\n")
    replace(ROOT / "docs/performance.md", report.markdown(result))
    replace(ROOT / "README.md", short(result))


def replace(path, text):
    """What stands between the marks is this from now on."""
    begin, end = "<!-- comparison -->\n", "<!-- end of comparison -->"
    before, rest = path.read_text().split(begin)
    after = rest.split(end)[1]
    path.write_text(f"{before}{begin}\n{text.strip()}\n\n{end}{after}")


def short(result):
    """One line a proxy, for the README."""
    tables = {table["name"]: table for table in result["tables"]}
    rows, quiet = [], len(report.disturbed(result)) <= sum(len(table["rows"]) for table in result["tables"]) / 10
    for name in SHORT:
        cells = [found(tables.get(table), name) for table in ("64", "new", "half")]
        if cells[0]:
            one, new, half = cells
            latency = f"{half['p99_us'] / 1e3:.2f} ms" if half and quiet else ""
            memory = f"{result['memory'][one['subject']]['idle_mib']:.0f} MiB"
            rows.append([name, cost(one, tables["64"]), cost(new, tables.get("new")), latency, memory])
    columns = ("", "CPU per call", "with a new token each call", "99 % answered within, half load", "memory, idle")
    lines = list(report.rows_of(columns, rows))
    if not quiet:
        lines += ["", "Others used the machine meanwhile: the ratios hold better than the microseconds, and latency is left out."]
    return "\n".join(lines)


def found(table, name):
    return next((row for row in table["rows"] if row["name"] == name), None) if table else None


def cost(row, table):
    if not row:
        return ""
    return f"{row['cpu_us']:.0f} µs, {report.to_nginx(row, table):.1f}×"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
