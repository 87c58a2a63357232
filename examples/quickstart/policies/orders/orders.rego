# The orders team's rules: for calls to their own tool. What no rule allows is refused.
package countersign.teams.orders

import data.countersign.lib.money

most_by_agent := {"minor": 5000, "currency": "USD"}

allow contains {"code": "read_orders"} if input.action.name == "orders.read"

allow contains {"code": "refund_open_orders"} if {
	input.action.name == "refunds.create"
	input.facts.order.status == "open"
}

deny contains {"code": "refund_too_large", "message": "An agent refunds 50.00 USD at most."} if {
	input.action.name == "refunds.create"
	not money.at_most(input.action.parameters.amount, most_by_agent)
}
