package countersign.teams.finance_test

import data.countersign.teams.finance

# Monday, 2026-11-23T10:00:00Z, which is 11:00 in Berlin.
monday := 1795428000000000000

hour := 3600000000000

payment := {
	"action": {
		"name": "payments.create",
		"parameters": {"amount": {"minor": 119000, "currency": "EUR", "text": "1190.00"}, "supplier": "s-7"},
	},
	"chain": [{"kind": "user", "covers": true}, {"kind": "agent", "covers": true}],
	"delegation": {"covers": true},
	"facts": {"invoice": {"supplier": "s-7", "supplier_status": "approved", "currency": "EUR", "total": "1190.00"}},
	"task": {"stage": "supervised"},
	"now_ns": monday,
}

codes(reasons) := {reason.code | some reason in reasons}

test_a_payment_of_an_approved_invoice_waits_for_somebody_else if {
	codes(finance.allow) == {"payment_within_grant"} with input as payment
	codes(finance.deny) == set() with input as payment
	codes(finance.approval) == {"four_eyes"} with input as payment
}

test_every_payment_is_asked_about_however_small if {
	small := object.union(payment, {"action": {"parameters": {"amount": {"minor": 1}}}})
	codes(finance.approval) == {"four_eyes"} with input as small
}

test_large_payments_and_other_currencies_are_for_people if {
	every amount in [{"minor": 5000001}, {"currency": "USD"}, {"minor": null, "currency": null}] {
		given := object.union(payment, {"action": {"parameters": {"amount": amount}}})
		"too_much" in codes(finance.deny) with input as given
	}
}

test_a_supplier_that_is_not_known_to_be_approved_is_not_paid if {
	every invoice in [{"supplier_status": "blocked"}, {"supplier_status": null}, {"supplier": "s-8"}, {"supplier": null}] {
		given := object.union(payment, {"facts": {"invoice": invoice}})
		codes(finance.deny) == {"unknown_supplier"} with input as given
		codes(finance.allow) == set() with input as given
	}
}

test_what_is_paid_is_what_was_billed if {
	every invoice in [{"total": "1190.01"}, {"total": null}, {"currency": "USD"}] {
		given := object.union(payment, {"facts": {"invoice": invoice}})
		codes(finance.deny) == {"not_what_was_billed"} with input as given
		codes(finance.allow) == set() with input as given
	}
}

test_payments_are_made_in_office_hours if {
	every now in [monday - (48 * hour), monday + (12 * hour), monday - (4 * hour)] {
		given := object.union(payment, {"now_ns": now})
		codes(finance.deny) == {"out_of_hours"} with input as given
	}
}

test_a_task_that_only_observes_pays_nothing if {
	given := object.union(payment, {"task": {"stage": "draft"}})
	codes(finance.allow) == set() with input as given
}

test_reading_invoices_needs_a_grant_and_nobody_else if {
	read := object.union(payment, {"action": {"name": "invoices.read"}})
	codes(finance.allow) == {"invoices_within_grant"} with input as read
	codes(finance.deny) == set() with input as read
	codes(finance.approval) == set() with input as read
}
