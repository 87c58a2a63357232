# Payments with four eyes: an agent prepares, somebody who is not its task's initiator says yes, to known suppliers, in
# office hours.
package countersign.teams.finance

import data.countersign.lib.clock
import data.countersign.lib.delegation
import data.countersign.lib.money
import data.countersign.lib.stage

# Payments above this are made by people.
most := {"minor": 5000000, "currency": "EUR"}

zone := "Europe/Berlin"

allow contains {"code": "invoices_within_grant"} if {
	input.action.name == "invoices.read"
	delegation.covers(input.action)
}

allow contains {"code": "payment_within_grant"} if {
	input.action.name == "payments.create"
	delegation.covers(input.action)
	is_approved_supplier
	is_what_was_billed
	stage.at_least("supervised")
}

# Every one of them. The approver is never whoever started the work.
approval contains {
	"code": "four_eyes",
	"message": "Somebody else than the initiator has to approve the payment.",
	"approvers": ["group:finance", "not:initiator"],
	"expires": "PT4H",
} if {
	input.action.name == "payments.create"
}

deny contains {"code": "too_much", "message": "Payments of this size are made by people."} if {
	input.action.name == "payments.create"
	not money.at_most(input.action.parameters.amount, most)
}

deny contains {"code": "unknown_supplier", "message": "Only approved suppliers are paid."} if {
	input.action.name == "payments.create"
	not is_approved_supplier
}

deny contains {"code": "not_what_was_billed", "message": "A payment is what the invoice says, no more and no less."} if {
	input.action.name == "payments.create"
	not is_what_was_billed
}

deny contains {"code": "out_of_hours", "message": "Payments are made on workdays from 08:00 to 18:00.", "retry": "after"} if {
	input.action.name == "payments.create"
	not in_office_hours
}

default is_approved_supplier := false

is_approved_supplier if {
	input.facts.invoice.supplier_status == "approved"
	input.facts.invoice.supplier == input.action.parameters.supplier
}

default is_what_was_billed := false

is_what_was_billed if {
	input.facts.invoice.currency == input.action.parameters.amount.currency
	input.facts.invoice.total == input.action.parameters.amount.text
}

in_office_hours if {
	clock.is_workday(zone)
	clock.within_times(zone, "08:00", "18:00")
}
