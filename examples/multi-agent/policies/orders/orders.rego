# The orders team's rules. The planner reads and hands over; only a helper that somebody handed work to pays money out.
package countersign.teams.orders

import data.countersign.lib.delegation

allow contains {"code": "read_orders"} if input.action.name == "orders.read"

allow contains {"code": "refund_paid_orders"} if {
	input.action.name == "refunds.create"
	input.facts.order.status == "paid"
}

deny contains {"code": "planner_pays", "message": "The planner hands refunds over to a helper."} if {
	input.action.name == "refunds.create"
	delegation.depth < 2
}
