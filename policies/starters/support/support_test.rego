package countersign.teams.support_test

import data.countersign.teams.support

alice := {"id": "alice", "issuer": "https://sso.example/realms/acme"}

usd(minor) := {"minor": minor, "currency": "USD", "text": "x"}

spent(minor) := [{
	"name": "daily_refunds", "max": usd(20000), "used": usd(minor), "remaining": usd(20000 - minor), "window": "P1D", "hop": 1,
}]

refund := {
	"action": {"name": "refunds.create", "parameters": {"amount": usd(2000)}},
	"user": alice,
	"chain": [{"kind": "user", "covers": true}, {"kind": "agent", "covers": true}],
	"delegation": {"covers": true},
	"facts": {"order": {"placed_by": alice, "status": "paid"}},
	"limits": spent(0),
}

codes(reasons) := {reason.code | some reason in reasons}

test_a_refund_of_ones_own_paid_order_goes if {
	codes(support.allow) == {"refund_within_grant"} with input as refund
	codes(support.deny) == set() with input as refund
	codes(support.approval) == set() with input as refund
}

test_reading_needs_a_grant if {
	every action in ["orders.read", "orders.list"] {
		given := object.union(refund, {"action": {"name": action}})
		codes(support.allow) == {"orders_within_grant"} with input as given
		uncovered := object.union(given, {"delegation": {"covers": false}})
		codes(support.allow) == set() with input as uncovered
	}
}

test_somebody_elses_order_and_one_of_nobody_are_not_refunded if {
	every placed_by in [{"id": "bob", "issuer": alice.issuer}, {"id": "alice", "issuer": "https://other.example"}, null] {
		given := object.union(refund, {"facts": {"order": {"placed_by": placed_by}}})
		codes(support.deny) == {"not_your_order"} with input as given
		codes(support.allow) == set() with input as given
	}
}

test_what_is_not_known_to_be_paid_is_not_refunded if {
	every status in ["open", "closed", null] {
		given := object.union(refund, {"facts": {"order": {"status": status}}})
		codes(support.deny) == {"not_paid"} with input as given
		codes(support.allow) == set() with input as given
	}
}

test_a_large_refund_or_one_of_unknown_size_is_asked_about if {
	every amount in [usd(10001), {"minor": 1, "currency": "EUR", "text": "0.01"}, usd(null)] {
		given := object.union(refund, {"action": {"parameters": {"amount": amount}}})
		codes(support.approval) == {"large_refund"} with input as given
	}
}

test_a_day_that_is_nearly_spent_is_asked_about if {
	below := object.union(refund, {"limits": spent(15999)})
	codes(support.approval) == set() with input as below
	nearly := object.union(refund, {"limits": spent(16000)})
	codes(support.approval) == {"nearly_spent"} with input as nearly
	uncounted := object.union(refund, {"limits": []})
	codes(support.approval) == {"nearly_spent"} with input as uncounted
}
