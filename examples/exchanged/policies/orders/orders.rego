# The orders team's rules: what alice gave the agent goes, and money only for orders that were paid.
package countersign.teams.orders

import data.countersign.lib.delegation

allow contains {"code": "given"} if delegation.covers(input.action)

deny contains {"code": "not_paid", "message": "Only what was paid can be paid back."} if {
	input.action.name == "refunds.create"
	not input.facts.order.status == "paid"
}
