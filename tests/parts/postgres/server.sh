#!/bin/sh
# A real PostgreSQL on a Unix socket in a folder of its own, for as long as its standard input is open. It prints one
# line of JSON when it can be used. Lines on its standard input: `crash` (as by a power cut, and up again), `stop`,
# `start`, `pause` (there, and silent) and `resume`; `standby` (a second server follows it, and nothing is acknowledged that
# is not there too), `late` (nothing waits for it any more, and it gets nothing more), and `failover` (the first is gone for
# good, and the second is found in its place, in the folder `door` where nothing but a link says which of them it is). Each is
# answered by a line that repeats it. Not for root, which PostgreSQL refuses: see the tests' starter.
set -eu
cd /
BIN=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
DIR=$(mktemp -d /tmp/countersign-postgres.XXXXXX)
log() { cat >> "$DIR/log"; }

# The server with its data in $1, in a folder of that name.
run() {
    # Few connections and small caches: several of these run beside each other. fsync stays on.
    "$BIN/postgres" -D "$DIR/$1/data" -k "$DIR/$1" -c listen_addresses= -c shared_buffers=16MB -c max_connections=60 \
        >> "$DIR/log" 2>&1 < /dev/null &
    STARTED=$!
    until "$BIN/pg_isready" -q -h "$DIR/$1" -U countersign -d postgres; do
        kill -0 "$STARTED" 2> /dev/null || { cat "$DIR/log" >&2; exit 1; }
        sleep 0.05
    done
}

start() {
    run one
    PID=$STARTED
}

ask() {
    "$BIN/psql" -X -q -A -t -h "$DIR/$1" -U countersign -d postgres -c "$2" 2>> "$DIR/log"
}

standby() {
    mkdir -m 700 "$DIR/two"
    "$BIN/pg_basebackup" -h "$DIR/one" -U countersign -D "$DIR/two/data" -R -c fast 2>&1 | log
    run two
    STANDBY=$STARTED
    ask one "ALTER SYSTEM SET synchronous_standby_names = '*'"
    ask one "SELECT pg_reload_conf()" | log
    until [ "$(ask one "SELECT sync_state FROM pg_stat_replication")" = sync ]; do sleep 0.05; done
}

late() {
    ask one "ALTER SYSTEM RESET synchronous_standby_names"
    ask one "SELECT pg_reload_conf()" | log
    until [ -z "$(ask one "SHOW synchronous_standby_names")" ]; do sleep 0.05; done
    # It is there, and hears of nothing that is written from now on.
    ask two "ALTER SYSTEM SET primary_conninfo = ''"
    ask two "SELECT pg_reload_conf()" | log
    until [ -z "$(ask one "SELECT pid FROM pg_stat_replication")" ]; do sleep 0.05; done
}

failover() {
    signal KILL
    end KILL
    ask two "SELECT pg_promote()" | log
    ln -sfn two "$DIR/door"
    PID=$STANDBY
    STANDBY=
}

end() {
    kill "-$1" "$PID" 2> /dev/null || true
    wait "$PID" 2> /dev/null || true
}

# The server and one process for each connection.
signal() {
    kill "-$1" "$PID" $(ps -o pid= --ppid "$PID") 2> /dev/null || true
}

last() {
    signal CONT
    end QUIT
    if [ -n "$STANDBY" ]; then
        PID=$STANDBY
        signal CONT
        end QUIT
    fi
    rm -rf "$DIR"
}

STANDBY=
trap last EXIT
trap 'exit 0' TERM INT
mkdir -m 700 "$DIR/one"
ln -s one "$DIR/door"
"$BIN/initdb" -D "$DIR/one/data" -A trust -U countersign --no-sync -E UTF8 --locale=C 2>&1 | log
start
echo "{\"ready\":true,\"socket\":\"$DIR/door\",\"bin\":\"$BIN\"}"
while read -r line; do
    case "$line" in
        crash) end QUIT; start ;;
        stop) end INT ;;
        start) start ;;
        pause) signal STOP ;;
        resume) signal CONT ;;
        standby) standby ;;
        late) late ;;
        failover) failover ;;
    esac
    echo "$line"
done
