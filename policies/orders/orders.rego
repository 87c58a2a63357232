# The support team's policy for the orders API: agents read orders, draft notes and refund what the user placed.
package countersign.teams.support

import data.countersign.lib.delegation
import data.countersign.lib.money

# Above this a person has to say yes.
approval_above := {"minor": 10000, "currency": "USD"}

default own_order := false

own_order if delegation.is_user(input.facts.order.placed_by)

allow contains {"code": "orders_within_grant"} if {
	input.action.name in {"orders.read", "orders.list", "orders.watch"}
	delegation.covers(input.action)
}

allow contains {"code": "note_within_grant"} if {
	input.action.name == "notes.draft"
	delegation.covers(input.action)
}

allow contains {"code": "refund_within_grant"} if {
	input.action.name == "refunds.create"
	delegation.covers(input.action)
	own_order

	# An order whose state could not be read is refunded by nobody.
	is_string(input.facts.order.status)
}

deny contains {"code": "not_your_order", "message": "Refunds only on orders the user placed."} if {
	input.action.name == "refunds.create"
	not own_order
}

deny contains {"code": "refund_closed_order", "message": "The order is closed and can no longer be refunded."} if {
	input.action.name == "refunds.create"
	input.facts.order.status == "closed"
}

approval contains {"code": "large_refund", "message": "A refund this large needs a person's approval."} if {
	input.action.name == "refunds.create"
	not money.at_most(input.action.parameters.amount, approval_above)
}
