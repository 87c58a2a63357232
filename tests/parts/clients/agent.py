"""An agent as its developers write them in Python: the same errand with `requests`, with `httpx`, and with `httpx` over HTTP/2.

    python3 agent.py requests|httpx|httpx2 < ERRAND

ERRAND is {"base": URL of the sidecar, "token", "probe": token for the probing actions, "mark"}. On stdout comes one JSON object
of what the agent saw at each step. The packages of requirements.txt lie in packages/ beside this file.
"""

import asyncio
import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "packages"))

PATIENCE = 30


def seen(answer):
    """What matters of an answer, whichever library it is from."""
    kind = answer.headers.get("content-type", "")
    return {
        "status": answer.status_code,
        "type": kind,
        "retry_after": answer.headers.get("retry-after"),
        "decision_id": answer.headers.get("countersign-decision-id"),
        "json": answer.json() if "json" in kind else None,
    }


def pieces():
    for number in range(64):
        yield bytes([number]) * 4096


class Library:
    """The little in which the two libraries differ."""

    def __init__(self, name):
        if name == "requests":
            import requests

            self.session = requests.Session()
            self.session.trust_env = False
            self.follow = {"allow_redirects": True}
            self.upload = "data"
        else:
            import httpx

            second = name == "httpx2"
            self.session = httpx.Client(http1=not second, http2=second, trust_env=False, timeout=PATIENCE)
            self.follow = {"follow_redirects": True}
            self.upload = "content"
        self.name = name

    def call(self, method, url, **more):
        return self.session.request(method, url, timeout=PATIENCE, **more)

    def events(self, url, headers, count):
        """The first events of a stream, which is then left."""
        found = []
        if self.name == "requests":
            answer = self.session.get(url, headers=headers, stream=True, timeout=PATIENCE)
            lines = answer.iter_lines(chunk_size=1, decode_unicode=True)
            for line in lines:
                if line.startswith("data: "):
                    found.append(json.loads(line[6:])["n"])
                if len(found) == count:
                    break
            answer.close()
            return {"events": found, "decision_id": answer.headers["countersign-decision-id"]}
        with self.session.stream("GET", url, headers=headers) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    found.append(json.loads(line[6:])["n"])
                if len(found) == count:
                    break
        return {"events": found, "decision_id": answer.headers["countersign-decision-id"]}

    def version(self, answer):
        if self.name == "requests":
            return {11: "HTTP/1.1"}[answer.raw.version]
        return answer.http_version


async def together(name, url, headers, count):
    """Many calls at once, as httpx's asynchronous client makes them."""
    import httpx

    second = name == "httpx2"
    async with httpx.AsyncClient(http1=not second, http2=second, trust_env=False, timeout=PATIENCE) as client:
        answers = await asyncio.gather(*(client.get(url, headers=headers) for _ in range(count)))
    return [[answer.status_code, answer.headers["countersign-decision-id"]] for answer in answers]


def errand(name, asked):
    library = Library(name)
    base = asked["base"] + "/orders/v1"
    bearer = {"Authorization": "Bearer " + asked["token"], "X-Mark": asked["mark"]}
    probe = {"Authorization": "Bearer " + asked["probe"], "X-Mark": asked["mark"]}

    def refund(amount):
        body = {"amount": amount, "currency": "USD"}
        return seen(library.call("POST", base + "/orders/17/refunds", json=body, headers=bearer))

    first = library.call("GET", base + "/orders/17", headers=bearer)
    steps = {
        "version": library.version(first),
        "read": seen(first),
        "refund": refund("20.00"),
        "too_much": refund("80.00"),
        "no_token": seen(library.call("GET", base + "/orders/17")),
        "later": seen(library.call("GET", base + "/hang", headers=probe)),
        "upload": seen(library.call("POST", base + "/upload", headers=probe, **{library.upload: pieces()})),
        "missing": seen(library.call("GET", base + "/orders/404", headers=bearer)),
        "led": seen(library.call("GET", base + "/redirect?to=/v1/echo/there", headers=probe, **library.follow)),
        "stream": library.events(base + "/stream?count=1000&every=100", probe, 3),
        "after": [seen(library.call("GET", base + "/orders/17", headers=bearer))["status"] for _ in range(10)],
    }
    if name != "requests":
        steps["together"] = asyncio.run(together(name, base + "/orders/17", bearer, 20))
    return steps


print(json.dumps(errand(sys.argv[1], json.load(sys.stdin))))
