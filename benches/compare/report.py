#!/usr/bin/env python3
"""The tables of a comparison: for a terminal, and as Markdown (`report.py result.json`)."""

import json
import sys

sys.dont_write_bytecode = True

from plan import NGINX

COLUMNS = ("", "calls/s", "p50 ms", "p99 ms", "p99.9 ms", "CPU µs/call", "to nginx", "busy")
NOISE = 0.10  # of the proxy's core, by others
LATE = 0.01   # of the calls of a fixed rate, not sent in time


def text(result):
    """Everything, for a person at a terminal."""
    return "\n".join([*about(result), "", *tables(result, terminal), *processes(result, terminal), *warnings(result)])


def markdown(result):
    """Everything, for docs/performance.md."""
    lines = [f"- {line}" for line in about(result)]
    return "\n".join([*lines, "", *tables(result, github), *processes(result, github), *warnings(result)])


def about(result):
    about = result["about"]
    starts = sorted(about["start_ms"])
    return [
        about["machine"],
        f"{about['version']}, {about['binary_mib']:.1f} MiB, ready {starts[len(starts) // 2]:.0f} ms after its start",
        f"fsync of this disk: {about['fsync_us']['p50']:.0f} µs, 99 % within {about['fsync_us']['p99']:.0f} µs",
        f"{about['rounds']} interleaved rounds of {about['seconds']:g} s; medians; traces at 1 % go to {about['traces']}",
    ]


def tables(result, shape):
    for table in result["tables"]:
        title = table["title"] + (f" ({table['rate']:.0f} calls/s)" if table["rate"] else "")
        yield from shape(title, COLUMNS, [cells(row, table) for row in table["rows"]])


def cells(row, table):
    per_call = row["cpu_us"]
    ratio = to_nginx(row, table)
    milliseconds = [f"{row[key] / 1e3:.2f}" for key in ("p50_us", "p99_us", "p999_us")]
    cpu = [f"{per_call:.0f} ±{row['spread']:.0f}" if per_call else "", f"{ratio:.1f}×" if ratio else ""]
    return [row["name"], f"{row['per_second']:.0f}", *milliseconds, *cpu, f"{row['busy'] * 100:.0f} %" if per_call else ""]


def to_nginx(row, table):
    """CPU per call as a multiple of nginx's for the same call in the same table."""
    nginx = next((other for other in table["rows"] if other["name"] == NGINX[row["call"]]), None)
    return row["cpu_us"] / nginx["cpu_us"] if nginx and nginx["cpu_us"] and row["cpu_us"] else None


def processes(result, shape):
    rows = [[name, *(f"{one[key]:.1f}" for key in ("ready_ms", "idle_mib", "loaded_mib"))]
            for name, one in result["memory"].items()]
    yield from shape("Processes", ("", "listens or ready, ms", "idle, MiB resident", "after the load, MiB"), rows)
    for name, size in result["ledger_bytes_per_call"].items():
        yield f"The ledger of `{name}` is whole and has every call; {size:.0f} bytes each."
        yield ""


def warnings(result):
    yield from (f"FAILED {failure}" for failure in result["failed"])
    noisy = disturbed(result)
    if noisy:
        yield (f"NOISY: in {len(noisy)} of {sum(len(table['rows']) for table in result['tables'])} rows other processes had up to "
               f"{max(noisy) * 100:.0f} % of the proxy's core; latency and throughput say little, CPU per call somewhat more")
    for table in result["tables"]:
        for row in table["rows"]:
            if row["late"] > LATE * table["rate"] * result["about"]["seconds"]:
                yield f"{table['title']}: {row['name']} could not take the rate; {row['late']:.0f} calls were never sent"


def disturbed(result):
    """How much of the proxy's core others had, in each row where that was much."""
    return [row["others"] for table in result["tables"] for row in table["rows"] if row["others"] > NOISE]


def terminal(title, columns, rows):
    widths = [max(len(line[index]) for line in [columns, *rows]) for index in range(len(columns))]
    yield title
    for line in [columns, *rows]:
        padded = [cell.rjust(width) for cell, width in zip(line, widths)]
        yield "  " + "  ".join([line[0].ljust(widths[0]), *padded[1:]])
    yield ""


def github(title, columns, rows):
    yield f"**{title}**"
    yield ""
    yield from rows_of(columns, rows)
    yield ""


def rows_of(columns, rows):
    """A Markdown table."""
    yield "| " + " | ".join(columns) + " |"
    yield "|" + "|".join("---" if index == 0 else "--:" for index in range(len(columns))) + "|"
    for row in rows:
        yield "| " + " | ".join(row) + " |"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("report.py result.json")
    with open(sys.argv[1], encoding="utf-8") as file:
        print(markdown(json.load(file)))
