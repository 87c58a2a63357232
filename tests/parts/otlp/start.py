"""A real OTLP receiver (rotel) that writes what it receives, in words, to a file that a test can search.

    python3 start.py --log FILE [--port 0] [--grpc-port 0]

OTLP/HTTP on --port (protobuf and JSON: /v1/traces, /v1/logs, /v1/metrics), OTLP/gRPC on --grpc-port. One JSON line on
stdout when both answer: {"ready": true, "port": N, "grpc_port": M, "log": FILE}. Ends at SIGTERM and when stdin closes.

FILE then holds, for each item and up to a second after it was sent (rotel batches for 200 ms):

    Span #0                                   LogRecord #0
        Trace ID       : 5b8efff7…            Body: Str(…)
        Parent ID      :                      Attributes:
        ID             : eee19b7e…                 -> countersign.run.id: Str(…)
        Name           : …                        Trace ID       : 5b8efff7…
    Attributes:                                   Span ID        : eee19b7e…
         -> countersign.run.id: Str(…)        Flags: 0
"""

import argparse
import ctypes
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
PR_SET_PDEATHSIG = 1


def agent() -> pathlib.Path:
    path = HERE / "packages" / "rotel" / "rotel-agent"
    if not path.exists():
        sys.exit(f"{path} is missing: run `.ci/run parts`")
    return path


def free_ports() -> tuple[int, int]:
    """Two that differ: the first is still taken while the second is looked for."""
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


def die_with_us() -> None:
    """Runs in the child: nobody forwards a SIGKILL, so the kernel is asked to."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def start(log: str, port: int, grpc_port: int, scratch: str) -> subprocess.Popen:
    # Only the options below: a ROTEL_* or OTEL_* variable of the test's own environment must not change the receiver.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ROTEL_", "OTEL_"))}
    with open(log, "ab") as output:
        return subprocess.Popen(
            [
                agent(), "start", "--exporter", "blackhole",
                "--debug-log", "traces", "--debug-log", "metrics", "--debug-log", "logs",
                "--debug-log-verbosity", "detailed",
                "--otlp-http-endpoint", f"127.0.0.1:{port}",
                "--otlp-grpc-endpoint", f"127.0.0.1:{grpc_port}",
                "--pid-file", f"{scratch}/pid", "--log-file", f"{scratch}/log",
            ],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, preexec_fn=die_with_us,
        )


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False


def wait_until_ready(receiver: subprocess.Popen, ports: list[int], log: str) -> None:
    deadline = time.monotonic() + 60
    while not all(answers(port) for port in ports):
        if receiver.poll() is not None or time.monotonic() > deadline:
            receiver.kill()
            sys.exit(f"rotel did not start (ports {ports}); see {log}")
        time.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description="A real OTLP receiver for the behaviour tests.")
    parser.add_argument("--log", required=True, help="file to which everything received is appended, in words")
    parser.add_argument("--port", type=int, default=0, help="OTLP/HTTP")
    parser.add_argument("--grpc-port", type=int, default=0, help="OTLP/gRPC")
    asked = parser.parse_args()
    free, another = free_ports()
    port, grpc_port = asked.port or free, asked.grpc_port or another

    with tempfile.TemporaryDirectory() as scratch:
        receiver = start(asked.log, port, grpc_port, scratch)
        signal.signal(signal.SIGTERM, lambda *_: receiver.terminate())
        signal.signal(signal.SIGINT, lambda *_: receiver.terminate())
        wait_until_ready(receiver, [port, grpc_port], asked.log)
        print(json.dumps({"ready": True, "port": port, "grpc_port": grpc_port, "log": asked.log}), flush=True)

        def end_with_the_test() -> None:
            sys.stdin.buffer.read()
            receiver.terminate()

        threading.Thread(target=end_with_the_test, daemon=True).start()
        status = receiver.wait()
    # os._exit: the reading thread may still hold stdin, which a normal exit would wait for.
    os._exit(0 if status in (0, -signal.SIGTERM) else 1)


if __name__ == "__main__":
    main()
