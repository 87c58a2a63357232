#!/usr/bin/env python3
"""The README's chart of a comparison (`chart.py result.json > cost.svg`): CPU per call, one bar a row.

It brings its own background and follows the reader's colour scheme, so that it can be read anywhere."""

import json
import sys
from html import escape

sys.dont_write_bytecode = True

from report import to_nginx

WIDTH, LEFT, RIGHT, BAR, STEP = 760, 270, 140, 16, 26

STYLE = """
  .ground { fill: #ffffff; stroke: #d0d7de } .text { fill: #1f2328 } .faint { fill: #59636e }
  .forward { fill: #8c959f } .peer { fill: #b08800 } .own { fill: #1a7f37 }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117; stroke: #3d444d } .text { fill: #f0f6fc } .faint { fill: #9198a1 }
    .forward { fill: #656c76 } .peer { fill: #d29922 } .own { fill: #3fb950 }
  }
  text { font: 13px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif }
  .title { font-size: 15px; font-weight: 600 } .note { font-size: 11.5px }
"""

NOTES = (
    "nginx only forwards. HAProxy and Envoy check signature, issuer, audience, time, actor and scope.",
    "Countersign also checks the chain of user and agents, asks Rego, and has the decision on disk before it sends.",
)


def svg(result):
    groups = [(table, shown(table)) for name in ("64", "new") for table in result["tables"] if table["name"] == name]
    largest = max(row["cpu_us"] for _, rows in groups for row in rows)
    parts, y = [text(20, 32, "CPU per call of the process in the middle, in µs", "text title")], 46
    for table, rows in groups:
        y += 26
        parts.append(text(20, y, table["title"], "faint"))
        y += 10
        for row in rows:
            parts += bar(row, table, y, largest)
            y += STEP
    about = result["about"]
    for note in (*NOTES, f"One core for the proxy; {about['machine']}. Less is better."):
        y += 18
        parts.append(text(20, y + 6, note, "faint note"))
    height = y + 24
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">',
        "<title>CPU per call of nginx, HAProxy, Envoy and Countersign</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="ground" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>',
        *parts,
        "</svg>",
    ])


def shown(table):
    """nginx first, then the others from the least to the most."""
    rows = [row for row in table["rows"] if row["cpu_us"] and row["name"] != "nginx refund" and row["subject"] != "events"]
    return sorted(rows, key=lambda row: (row["subject"] != "nginx", row["cpu_us"]))


def bar(row, table, y, largest):
    kind = "forward" if row["subject"] == "nginx" else "own" if row["name"].startswith("Countersign") else "peer"
    length = max(2.0, row["cpu_us"] / largest * (WIDTH - LEFT - RIGHT))
    name = "nginx, forwarding only" if row["subject"] == "nginx" else row["name"]
    ratio = to_nginx(row, table)
    more = f" · {ratio:.1f}×" if ratio and kind != "forward" else ""
    return [
        text(LEFT - 12, y + 13, name, "text", 'text-anchor="end"'),
        f'<rect class="{kind}" x="{LEFT}" y="{y + 1}" width="{length:.1f}" height="{BAR}" rx="2"/>',
        text(LEFT + length + 8, y + 13, f"{row['cpu_us']:.0f} µs{more}", "faint"),
    ]


def text(x, y, content, kind, more=""):
    return f'<text class="{kind}" x="{x:.1f}" y="{y}" {more}>{escape(content)}</text>'


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("chart.py result.json")
    with open(sys.argv[1], encoding="utf-8") as file:
        print(svg(json.load(file)))
