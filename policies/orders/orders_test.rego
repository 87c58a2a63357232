package countersign.teams.support_test

import data.countersign.teams.support

alice := {"id": "alice", "issuer": "https://sso.example/realms/acme"}

call(action, order) := {
	"action": {
		"name": action,
		"parameters": {"amount": {"minor": 2000, "currency": "USD", "text": "20.00"}},
	},
	"user": alice,
	"chain": [{"kind": "user", "covers": true}, {"kind": "agent", "covers": true}],
	"delegation": {"covers": true},
	"facts": {"order": order},
}

open_order := {"placed_by": alice, "status": "open"}

codes(reasons) := {reason.code | some reason in reasons}

test_reading_and_drafting_need_a_grant_that_covers_them if {
	every action, code in {
		"orders.read": "orders_within_grant",
		"orders.list": "orders_within_grant",
		"orders.watch": "orders_within_grant",
		"notes.draft": "note_within_grant",
	} {
		codes(support.allow) == {code} with input as call(action, {"placed_by": null, "status": null})
		uncovered := object.union(call(action, open_order), {"delegation": {"covers": false}})
		codes(support.allow) == set() with input as uncovered
	}
}

test_a_refund_of_ones_own_open_order_is_allowed if {
	given := call("refunds.create", open_order)
	codes(support.allow) == {"refund_within_grant"} with input as given
	codes(support.deny) == set() with input as given
	codes(support.approval) == set() with input as given
}

test_a_refund_of_somebody_elses_order_is_denied if {
	given := call("refunds.create", {"placed_by": {"id": "bob", "issuer": alice.issuer}, "status": "open"})
	codes(support.deny) == {"not_your_order"} with input as given
	codes(support.allow) == set() with input as given
}

test_a_missing_fact_denies if {
	given := call("refunds.create", {"placed_by": null, "status": null})
	codes(support.deny) == {"not_your_order"} with input as given
	codes(support.allow) == set() with input as given
	codes(support.allow) == set() with input as call("refunds.create", {"placed_by": alice, "status": null})
	codes(support.deny) == {"not_your_order"} with input as object.remove(given, ["facts"])
}

test_a_closed_order_is_not_refunded if {
	given := call("refunds.create", {"placed_by": alice, "status": "closed"})
	codes(support.deny) == {"refund_closed_order"} with input as given
}

test_a_large_refund_or_one_of_unknown_size_needs_approval if {
	every amount in [
		{"minor": 10001, "currency": "USD", "text": "100.01"},
		{"minor": 1, "currency": "EUR", "text": "0.01"},
		{"minor": null, "currency": null, "text": null},
	] {
		sized := {"action": {"name": "refunds.create", "parameters": {"amount": amount}}}
		codes(support.approval) == {"large_refund"} with input as object.union(call("refunds.create", open_order), sized)
	}
}

test_an_action_that_no_rule_names_is_not_allowed if {
	codes(support.allow) == set() with input as call("orders.delete", open_order)
}
