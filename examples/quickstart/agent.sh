#!/bin/sh
# An agent's side of the authority, with nothing but openssl and curl (private_key_jwt, RFC 7523; exchange, RFC 8693).
#
#   agent.sh key AGENT                       make AGENT.pem, print the public key set for its registration
#   agent.sh exchange AGENT TASK < user.jwt  print a token for AGENT acting for the user of user.jwt
#   agent.sh handover AGENT HELPER DETAILS < own.jwt   print what HELPER may go on with, within DETAILS (JSON)
#   agent.sh takeover HELPER < handover.jwt  print a token for HELPER acting for the same user, through AGENT
#
# Environment: AUTHORITY (default http://127.0.0.1:8693), AUDIENCE (default urn:example:countersign:support).
set -eu

authority=${AUTHORITY:-http://127.0.0.1:8693}
audience=${AUDIENCE:-urn:example:countersign:support}

usage() {
	sed -n '4,7s/^# *//p' "$0" >&2
	exit 2
}
base64url() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }

make_key() {
	[ -e "$1.pem" ] || (umask 077 && openssl genpkey -algorithm ed25519 -out "$1.pem")
	# The last 32 bytes of the public key's DER form are the key itself (RFC 8410).
	x=$(openssl pkey -in "$1.pem" -pubout -outform DER | tail -c 32 | base64url)
	printf '{"keys":[{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","use":"sig","kid":"%s","x":"%s"}]}\n' "$1" "$x"
}

# Who I am, signed: good once, for a minute.
assertion() {
	now=$(date +%s)
	header=$(printf '{"alg":"EdDSA","typ":"JWT","kid":"%s"}' "$1" | base64url)
	claims=$(printf '{"iss":"%s","sub":"%s","aud":"%s","iat":%d,"exp":%d,"jti":"%s"}' \
		"$1" "$1" "$authority" "$now" "$((now + 60))" "$(openssl rand -hex 16)" | base64url)
	signed=$(mktemp)
	trap 'rm -f "$signed"' EXIT
	printf '%s.%s' "$header" "$claims" >"$signed"
	printf '%s.%s.%s' "$header" "$claims" "$(openssl pkeyutl -sign -rawin -inkey "$1.pem" -in "$signed" | base64url)"
}

# ask AGENT AUDIENCE [more of curl's arguments] < token
ask() {
	self=$1 for=$2
	shift 2
	# Tokens go to curl on its standard input: arguments can be read by every process of the machine.
	answer=$(printf 'subject_token=%s&client_assertion=%s' "$(cat)" "$(assertion "$self")" | curl -sS \
		"$authority/oauth2/token" --data @- \
		--data-urlencode grant_type=urn:ietf:params:oauth:grant-type:token-exchange \
		--data-urlencode subject_token_type=urn:ietf:params:oauth:token-type:access_token \
		--data-urlencode client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer \
		--data-urlencode "client_id=$self" --data-urlencode "audience=$for" "$@")
	token=$(printf '%s' "$answer" | sed -n 's/.*"access_token" *: *"\([^"]*\)".*/\1/p')
	[ -n "$token" ] || { printf 'refused: %s\n' "$answer" >&2; exit 1; }
	printf '%s\n' "$token"
}

case "${1-}" in
key) [ $# -eq 2 ] && make_key "$2" || usage ;;
exchange) [ $# -eq 3 ] && ask "$2" "$audience" --data-urlencode "task_id=$3" || usage ;;
handover)
	[ $# -eq 4 ] && ask "$2" "$authority" --data-urlencode "requested_actor=$3" \
		--data-urlencode "authorization_details=$4" || usage
	;;
takeover) [ $# -eq 2 ] && ask "$2" "$audience" || usage ;;
*) usage ;;
esac
