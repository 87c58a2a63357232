"""A real MCP server (the official Python SDK, Streamable HTTP), which answers with events.

    python3 server.py [--port 0]

One JSON line on stdout when it can be used: {"ready": true, "port": N, "url": "http://127.0.0.1:N"}; the endpoint is
POST /mcp. Ends at SIGTERM and when stdin closes. Its tools:

    find {"name"}       the customer, as structured content and as text: {"name", "ssn", "cards": [{"number"}]}
    follow {"name"}     a notification of progress; the same once `release` was called
    release {}          lets every `follow` go on
"""

import argparse
import json
import os
import pathlib
import socket
import sys
import threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "packages"))

import anyio
import uvicorn
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from pydantic import BaseModel


class Card(BaseModel):
    number: str


class Customer(BaseModel):
    name: str
    ssn: str
    cards: list[Card]


server = MCPServer("customers")
released = threading.Event()


def customer(name: str) -> Customer:
    return Customer(name=name, ssn="078-05-1120", cards=[Card(number="4111"), Card(number="4222")])


@server.tool()
def find(name: str) -> Customer:
    return customer(name)


@server.tool()
async def follow(name: str, context: Context) -> Customer:
    await context.report_progress(1, 2, "waiting")
    while not released.is_set():
        await anyio.sleep(0.01)
    return customer(name)


@server.tool()
def release() -> str:
    released.set()
    return "released"


def main() -> None:
    parser = argparse.ArgumentParser(description="A real MCP server for the behaviour tests.")
    parser.add_argument("--port", type=int, default=0)
    asked = parser.parse_args()
    listener = socket.create_server(("127.0.0.1", asked.port))
    port = listener.getsockname()[1]
    app = server.streamable_http_app(host="127.0.0.1", stateless_http=True)
    web = uvicorn.Server(uvicorn.Config(app, log_level="warning"))

    def end_with_the_test() -> None:
        sys.stdin.buffer.read()
        os._exit(0)

    threading.Thread(target=end_with_the_test, daemon=True).start()
    # Connections wait in the socket's queue until they are served.
    print(json.dumps({"ready": True, "port": port, "url": f"http://127.0.0.1:{port}"}), flush=True)
    web.run(sockets=[listener])


if __name__ == "__main__":
    main()
