#!/bin/sh
# A real PostgreSQL on a Unix socket in a folder of its own, for as long as its standard input is open. It prints one
# line of JSON when it can be used. Lines on its standard input: `crash` (as by a power cut, and up again), `stop`,
# `start`, `pause` (there, and silent) and `resume`; each is answered by a line that repeats it. Not for root, which
# PostgreSQL refuses: see the tests' starter.
set -eu
cd /
BIN=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
DIR=$(mktemp -d /tmp/countersign-postgres.XXXXXX)
log() { cat >> "$DIR/log"; }

start() {
    # Few connections and small caches: several of these run beside each other. fsync stays on.
    "$BIN/postgres" -D "$DIR/data" -k "$DIR" -c listen_addresses= -c shared_buffers=16MB -c max_connections=60 \
        >> "$DIR/log" 2>&1 < /dev/null &
    PID=$!
    until "$BIN/pg_isready" -q -h "$DIR" -U countersign -d postgres; do
        kill -0 "$PID" 2> /dev/null || { cat "$DIR/log" >&2; exit 1; }
        sleep 0.05
    done
}

end() {
    kill "-$1" "$PID" 2> /dev/null || true
    wait "$PID" 2> /dev/null || true
}

# The server and one process for each connection.
signal() {
    kill "-$1" "$PID" $(ps -o pid= --ppid "$PID") 2> /dev/null || true
}

trap 'signal CONT; end QUIT; rm -rf "$DIR"' EXIT
trap 'exit 0' TERM INT
"$BIN/initdb" -D "$DIR/data" -A trust -U countersign --no-sync -E UTF8 --locale=C 2>&1 | log
start
echo "{\"ready\":true,\"socket\":\"$DIR\",\"bin\":\"$BIN\"}"
while read -r line; do
    case "$line" in
        crash) end QUIT; start ;;
        stop) end INT ;;
        start) start ;;
        pause) signal STOP ;;
        resume) signal CONT ;;
    esac
    echo "$line"
done
