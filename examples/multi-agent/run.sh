#!/bin/sh
# A planner works for alice, hands a part of it over to a refunder, and alice takes it all back.
#
#   run.sh TOKENS STATE
#
# TOKENS holds what people got from the identity provider: alice.jwt (a user's token for the authority), alice-console.jwt
# and dana-console.jwt (management tokens; dana is in the group `platform`). STATE is a new folder for everything else.
#
# Environment: SSO (the provider's issuer), USER_AUDIENCE, MANAGEMENT_AUDIENCE, ORDERS (the tool's URL), ORDERS_TOKEN;
# COUNTERSIGN (the binary), AUTHORITY_PORT, SIDECAR_PORT, HEALTH_PORT.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
agent=$here/../quickstart/agent.sh
. "$here/../example.sh"
AUTHORITY=$COUNTERSIGN_AUTHORITY_URL
export AUTHORITY

call() { # NAME METHOD PATH [BODY]: with the token of that name, and what comes of it
	printf 'Authorization: Bearer %s\n' "$(cat "$1.jwt")" >"$1.header"
	printf '%s %s %s %s\n  ' "$1" "$2" "$3" "${4-}"
	curl -sS -X "$2" -H "@$1.header" ${4:+-H 'Content-Type: application/json' -d "$4"} \
		-w '\n  HTTP %{http_code}\n' "http://127.0.0.1:$SIDECAR_PORT/orders/v1/orders/$3"
}

"$agent" key planner >planner.json
"$agent" key refunder >refunder.json
start_authority

say "dana lets a sidecar join, and it enrols"
start_sidecar multi-agent

say "alice lets the planner refund up to 50 USD a call and 200 a day on her orders, with one more agent; and starts a task"
cat >grant.json <<'JSON'
[{"type": "urn:countersign:action", "actions": ["orders.read"], "locations": ["orders"]},
 {"type": "urn:countersign:action", "actions": ["refunds.create"], "locations": ["orders"],
  "limits": {"amount": {"max": "50.00", "currency": "USD"},
    "daily": {"sum": "amount", "max": "200.00", "currency": "USD", "window": "P1D"}}, "where": {"order.placed_by": "$user"}}]
JSON
"$countersign" grant create --agent planner --details grant.json --stage supervised --redelegate 1 --expires 30d \
	--token "$tokens/alice-console.jwt" | tee grant.out
"$countersign" task start --grant "$(awk '$1 == "grant" { print $2 }' grant.out)" --id ticket-1 --stage supervised --expires 2h \
	--justification 'the desk came broken' --token "$tokens/alice-console.jwt"

say "the planner works for her, and hands refunds up to 10 USD over to the refunder"
"$agent" exchange planner ticket-1 <"$tokens/alice.jwt" >planner.jwt
"$agent" handover planner refunder '[{"type": "urn:countersign:action", "actions": ["refunds.create"],
	"locations": ["orders"], "limits": {"amount": {"max": "10.00", "currency": "USD"}}}]' <planner.jwt >handover.jwt
"$agent" takeover refunder <handover.jwt >refunder.jwt
call planner GET 17
call planner POST 17/refunds '{"amount": "8.00", "currency": "USD"}'
call refunder POST 17/refunds '{"amount": "8.00", "currency": "USD"}'
call refunder POST 17/refunds '{"amount": "20.00", "currency": "USD"}'
call refunder GET 17

say "alice takes the task back: it ends for both"
"$countersign" revoke task ticket-1 --reason 'settled by phone' --token "$tokens/alice-console.jwt"
# Within milliseconds as a rule; 5 s (write) and 60 s (read) are the bounds that the sidecar promises.
ended() { call planner GET 17 | grep -q 'HTTP 401'; }
attempt ended || true
call planner GET 17
call refunder POST 17/refunds '{"amount": "8.00", "currency": "USD"}'

records
