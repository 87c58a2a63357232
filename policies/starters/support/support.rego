# A support agent: it reads orders and refunds what the user placed and paid. A person says yes to what is large, and to
# everything once most of the day's sum is spent.
package countersign.teams.support

import data.countersign.lib.delegation
import data.countersign.lib.history
import data.countersign.lib.money

# Above this a person has to say yes.
approval_above := {"minor": 10000, "currency": "USD"}

# The name of the grant's limit over a day, and how much of it is spent without asking, in percent.
daily := "daily_refunds"

unasked_percent := 80

allow contains {"code": "orders_within_grant"} if {
	input.action.name in {"orders.read", "orders.list"}
	delegation.covers(input.action)
}

allow contains {"code": "refund_within_grant"} if {
	input.action.name == "refunds.create"
	delegation.covers(input.action)
	own_order
	is_paid
}

deny contains {"code": "not_your_order", "message": "Refunds only on orders the user placed."} if {
	input.action.name == "refunds.create"
	not own_order
}

deny contains {"code": "not_paid", "message": "Only an order that is paid can be refunded."} if {
	input.action.name == "refunds.create"
	not is_paid
}

approval contains {"code": "large_refund", "message": "A refund this large needs a person's approval.", "approvers": ["user"]} if {
	input.action.name == "refunds.create"
	not money.at_most(input.action.parameters.amount, approval_above)
}

# A grant without such a limit counts nothing, and so a person is asked.
approval contains {"code": "nearly_spent", "message": "Most of today's refunds are spent.", "approvers": ["user"]} if {
	input.action.name == "refunds.create"
	not history.below(daily, unasked_percent)
}

default own_order := false

own_order if delegation.is_user(input.facts.order.placed_by)

default is_paid := false

is_paid if input.facts.order.status == "paid"
