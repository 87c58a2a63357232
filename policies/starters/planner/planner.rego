# A planner that hands work to helpers. The planner plans and reads; a helper that it named writes. What a helper may do is
# settled before it has a token: `delegate` is asked by the authority.
package countersign.teams.planner

import data.countersign.lib.delegation

issuer := "https://countersign.example"

planner := {"id": "planner", "issuer": issuer}

helpers := [{"id": "booker", "issuer": issuer}, {"id": "mailer", "issuer": issuer}]

allow contains {"code": "plans"} if {
	input.action.effect == "read"
	delegation.covers(input.action)
	known_agents
}

allow contains {"code": "helper_acts"} if {
	input.action.name in {"bookings.create", "mails.draft"}
	delegation.covers(input.action)
	known_agents
	acts_for_the_planner
}

deny contains {"code": "unknown_helper", "message": "Only the planner and its helpers act here."} if not known_agents

deny contains {"code": "planner_plans", "message": "The planner hands this over to a helper."} if {
	input.action.effect != "read"
	delegation.is_agent(planner)
}

deny contains {"code": "not_through_the_planner", "message": "A helper acts for the planner, and only then."} if {
	input.action.effect != "read"
	not delegation.is_agent(planner)
	not acts_for_the_planner
}

# Before a token is issued: the user hands work to the planner, the planner to a helper that is listed and gets less than
# the planner holds, and nobody to anybody else.
delegate contains {"code": "to_the_planner"} if {
	input.exchange.from.kind == "user"
	is(input.exchange.to, planner)
}

delegate contains {"code": "to_a_helper"} if {
	is(input.exchange.from, planner)
	some helper in helpers
	is(input.exchange.to, helper)
	delegation.narrower(input.exchange.requested, held)
	count(input.exchange.requested.scope) < count(held.scope)
}

# What whoever passes it on holds: the last of the chain.
held := input.chain[count(input.chain) - 1]

default known_agents := false

known_agents if delegation.only(array.concat([planner], helpers))

default acts_for_the_planner := false

# The user, the planner, a helper: in that order and nobody else.
acts_for_the_planner if {
	[_, first, second] := input.chain
	is(first, planner)
	some helper in helpers
	is(second, helper)
}

is(principal, named) if {
	principal.id == named.id
	principal.issuer == named.issuer
}
