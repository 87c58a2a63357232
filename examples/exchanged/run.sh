#!/bin/sh
# An agent that was there before goes on as it did: with alice's own token, at another address.
#
#   run.sh TOKENS STATE
#
# TOKENS holds what people got from the identity provider: alice.jwt (a user's token, as the agent has it today),
# alice-console.jwt and dana-console.jwt (management tokens; dana is in the group `platform`). STATE is a new folder for
# everything else.
#
# Environment: SSO (the provider's issuer), USER_AUDIENCE, MANAGEMENT_AUDIENCE, ORDERS (the tool's URL), ORDERS_TOKEN;
# COUNTERSIGN (the binary), AUTHORITY_PORT, SIDECAR_PORT, HEALTH_PORT.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
. "$here/../example.sh"

printf 'Authorization: Bearer %s\n' "$(cat "$tokens/alice.jwt")" >alice.header
call() { # METHOD PATH [BODY [TASK]]: as the agent always did, and what comes of it
	printf '%s %s %s %s\n  ' "$1" "$2" "${3-}" "${4-}"
	curl -sS -X "$1" -H @alice.header ${3:+-H 'Content-Type: application/json' -d "$3"} ${4:+-H "Countersign-Task: $4"} \
		-w '\n  HTTP %{http_code}\n' "http://127.0.0.1:$SIDECAR_PORT/orders/v1/orders/$2"
}

"$countersign" agents key support-v1.pem >support-v1.json
start_authority

say "dana lets a sidecar join, and it enrols"
start_sidecar exchanged

say "the agent calls with alice's token, and she gave it nothing yet"
call GET 17

say "alice lets it look at orders and refund up to 50 USD, on her own"
cat >grant.json <<'JSON'
[{"type": "urn:countersign:action", "actions": ["orders.read"], "locations": ["orders"]},
 {"type": "urn:countersign:action", "actions": ["refunds.create"], "locations": ["orders"],
  "limits": {"amount": {"max": "50.00", "currency": "USD"}}, "where": {"order.placed_by": "$user"}}]
JSON
"$countersign" grant create --agent support-v1 --details grant.json --stage supervised --expires 30d \
	--token "$tokens/alice-console.jwt" | tee grant.out
# That the authority said no is believed for a few seconds.
goes() { call GET 17 >call.out && grep -q 'HTTP 200' call.out; }
attempt goes || true
cat call.out
call POST 17/refunds '{"amount": "8.00", "currency": "USD"}'

say "she starts a task that goes further than looking, and the agent goes on with that"
"$countersign" task start --grant "$(awk '$1 == "grant" { print $2 }' grant.out)" --id ticket-1 --stage supervised --expires 2h \
	--justification 'the desk came broken' --token "$tokens/alice-console.jwt"
call POST 17/refunds '{"amount": "8.00", "currency": "USD"}' ticket-1
call POST 17/refunds '{"amount": "80.00", "currency": "USD"}' ticket-1

say "alice takes the task back"
"$countersign" revoke task ticket-1 --reason 'settled by phone' --token "$tokens/alice-console.jwt"
# Within milliseconds as a rule; 5 s (write) and 60 s (read) are the bounds that the sidecar promises.
ended() { call POST 17/refunds '{"amount": "80.00", "currency": "USD"}' ticket-1 | grep -Eq 'withdrawn|task_ended'; }
attempt ended || true
call POST 17/refunds '{"amount": "8.00", "currency": "USD"}' ticket-1

records
