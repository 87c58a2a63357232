"""What is measured: groups of cases that are compared with each other, and how long that takes."""

from dataclasses import dataclass, replace

# What a call is compared with.
NGINX = {"read": "nginx", "read again": "nginx", "refund": "nginx refund", "refund again": "nginx refund"}


@dataclass(frozen=True)
class Case:
    """One row of a table: who is asked for what."""

    name: str      # what the row is called
    subject: str   # which running process
    call: str = "read"
    new_tokens: bool = False
    # Only where a process remembers tokens does a new one each call have to be one it has never seen.
    remembers: bool = False


@dataclass(frozen=True)
class Group:
    """One table."""

    name: str
    title: str
    cases: tuple
    connections: int = 64
    paced: bool = False  # at half of what Countersign's refund can do, instead of as fast as it goes


DIRECT = Case("direct", "tool")
PLAIN_PROXY = (Case("nginx", "nginx"), Case("nginx refund", "nginx", "refund"))
HAPROXY = Case("HAProxy, ES256 and rules", "haproxy")
ENVOY_CACHE = Case("Envoy, JWT cache and RBAC", "envoy-cache", remembers=True)
ENVOY = Case("Envoy, ES256 and RBAC", "envoy")
ALLOW = (Case("Countersign, plain allow", "plain", remembers=True),
         Case("Countersign refund, plain allow", "plain", "refund", remembers=True))
DEMO = (Case("Countersign", "demo", remembers=True), Case("Countersign refund", "demo", "refund", remembers=True))
AGAIN = (Case("Countersign, the same call again", "demo", "read again"),
         Case("Countersign refund, the same again", "demo", "refund again"))
EVENTS = Case("Countersign, each call exported as events", "events")

COMMON = (DIRECT, *PLAIN_PROXY, HAPROXY, ENVOY_CACHE, ALLOW[0], *DEMO)
FSYNC_MS = (1, 3, 10)
BUILDS = ("demo", "plain")  # the sidecars that can be asked in two builds at once


def new(cases):
    return tuple(replace(case, new_tokens=True) for case in cases)


def slow(milliseconds):
    at = f"slow-{milliseconds}"
    return (Case(f"Countersign, fsync +{milliseconds} ms", at),
            Case(f"Countersign refund, fsync +{milliseconds} ms", at, "refund"))


def quick():
    cases = (*PLAIN_PROXY, ENVOY_CACHE, ALLOW[0], *DEMO, *AGAIN)
    return [Group("64", "64 connections, one token", cases)]


def usual():
    return [
        Group("64", "64 connections, one token",
              (DIRECT, *PLAIN_PROXY, HAPROXY, ENVOY_CACHE, ENVOY, *ALLOW, *DEMO, *AGAIN, EVENTS)),
        Group("new", "64 connections, a new token each call", new((*PLAIN_PROXY, HAPROXY, ENVOY_CACHE, ENVOY, ALLOW[0], *DEMO))),
        Group("half", "a fixed rate, half of what Countersign's refund can do", COMMON, paced=True),
    ]


def full():
    warm, new_tokens, half = usual()
    return [
        warm,
        Group("1", "1 connection, one token", COMMON, connections=1),
        Group("512", "512 connections, one token", COMMON, connections=512),
        new_tokens,
        half,
        Group("fsync", "64 connections, a slower disk",
              (*PLAIN_PROXY, *DEMO, *(case for at in FSYNC_MS for case in slow(at)))),
        Group("fsync 1", "1 connection, a slower disk",
              (*PLAIN_PROXY, *DEMO, *(case for at in FSYNC_MS for case in slow(at))), connections=1),
    ]


def narrowed(groups, tables=None, cases=None, against=False):
    """Only these tables, only cases with such a name beside nginx, and Countersign's also by another build."""
    kept = []
    for group in groups:
        if tables and group.name not in tables:
            continue
        wanted = [case for case in group.cases if not cases or case.subject == "nginx" or any(part in case.name for part in cases)]
        if against:
            wanted = [each for case in wanted for each in (case, *older(case))]
        kept.append(replace(group, cases=tuple(wanted)))
    return kept


def older(case):
    """The same asked of the build that is compared with."""
    if case.subject in BUILDS:
        yield replace(case, name=f"{case.name}, before", subject=f"{case.subject}-before")


def subjects(groups):
    return {case.subject for group in groups for case in group.cases}


def duration(groups, rounds, seconds):
    """About how many seconds it all takes: each case also has a moment to mint tokens and to settle."""
    cases = sum(rounds * (seconds + (1.5 if case.new_tokens else 0.15)) for group in groups for case in group.cases)
    return cases + 10 + 2 * len(subjects(groups))
