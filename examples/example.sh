# What the examples that run an authority have in common. Sourced by their run.sh, with `here`, the folder of the example,
# and its arguments: TOKENS and STATE.

countersign=${COUNTERSIGN:-countersign}
: "${AUTHORITY_PORT:=8693}" "${SIDECAR_PORT:=8690}" "${HEALTH_PORT:=8692}"
export AUTHORITY_PORT SIDECAR_PORT HEALTH_PORT
COUNTERSIGN_AUTHORITY_URL=http://127.0.0.1:$AUTHORITY_PORT
export COUNTERSIGN_AUTHORITY_URL

tokens=$(cd "$1" && pwd)
umask 077
mkdir "$2"
cd "$2"
cp -R "$here/policies" "$here/authority.yaml" "$here/store.yaml" "$here/countersign.yaml" .
mkdir authority

say() { printf '\n== %s\n' "$*"; }

attempt() { # COMMAND…: until it goes well, for half a minute
	tries=0
	until "$@"; do
		tries=$((tries + 1))
		[ "$tries" -lt 300 ] || return 1
		sleep 0.1
	done
}

until_ready() { # URL
	attempt curl -fs -o /dev/null "$1/readyz" || { echo "$1 is not ready" >&2; exit 1; }
}

start_authority() {
	"$countersign" authority --config authority.yaml 2>authority.log &
	authority=$!
	trap 'kill $authority ${sidecar:-} 2>/dev/null; wait' EXIT
	until_ready "$COUNTERSIGN_AUTHORITY_URL"
}

start_sidecar() { # NAME: by dana's leave
	"$countersign" sidecars invite --name "$1" --tenants acme --out join.token --token "$tokens/dana-console.jwt"
	"$countersign" sidecar enrol --token join.token --dir enrolled --name "$1"
	SIDECAR_ID=$(sed -n 's/^  "id": "\(.*\)",*$/\1/p' enrolled/sidecar.json)
	export SIDECAR_ID
	"$countersign" sidecar --config countersign.yaml 2>sidecar.log &
	sidecar=$!
	until_ready "http://127.0.0.1:$HEALTH_PORT"
}

records() {
	say "what is on record"
	"$countersign" audit tail --from ledger
	"$countersign" audit verify --from ledger
}
