package countersign.lib.delegation_test

import data.countersign.lib.delegation

alice := {"id": "alice", "issuer": "https://sso.example"}

input_with(chain, covers) := {
	"action": {"name": "orders.read"},
	"user": alice,
	"agent": {"id": "support-v2", "issuer": "https://countersign.example"},
	"delegation": {"covers": covers},
	"chain": chain,
}

user_hop := {"kind": "user", "id": "alice", "issuer": "https://sso.example", "covers": true, "verified": "delegation_chain"}

agent_hop := {"kind": "agent", "id": "support-v2", "issuer": "https://countersign.example", "covers": true, "verified": "token"}

narrow_hop := object.union(agent_hop, {"id": "notes-v1", "covers": false})

act_hop := object.union(agent_hop, {"id": "inner", "covers": null, "verified": "nested_act"})

test_a_principal_is_the_user_by_issuer_and_id_together if {
	given := input_with([user_hop, agent_hop], true)
	user := given.user
	delegation.is_user(user) with input as given
	not delegation.is_user({"id": "alice", "issuer": "https://other.example"}) with input as input_with([], true)
	not delegation.is_user({"id": "alice"}) with input as input_with([], true)
	not delegation.is_user("alice") with input as input_with([], true)
	not delegation.is_user(null) with input as input_with([], true)
}

test_a_principal_is_the_agent_by_issuer_and_id_together if {
	delegation.is_agent({"id": "support-v2", "issuer": "https://countersign.example"}) with input as input_with([], true)
	user := alice
	not delegation.is_agent(user) with input as input_with([], true)
	not delegation.is_agent(null) with input as input_with([], true)
}

test_a_call_is_covered_only_when_the_token_and_every_hop_cover_it if {
	delegation.covers({"name": "orders.read"}) with input as input_with([user_hop, agent_hop], true)
	delegation.covers({"name": "orders.read"}) with input as input_with([user_hop, act_hop, agent_hop], true)
	not delegation.covers({"name": "orders.read"}) with input as input_with([user_hop, narrow_hop, agent_hop], true)
	not delegation.covers({"name": "orders.read"}) with input as input_with([user_hop, agent_hop], false)
	not delegation.covers({"name": "refunds.create"}) with input as input_with([user_hop, agent_hop], true)
	not delegation.covers({"name": "orders.read"}) with input as {"action": {"name": "orders.read"}}
}

test_the_depth_counts_agents if {
	delegation.depth == 1 with input as input_with([user_hop, agent_hop], true)
	delegation.depth == 2 with input as input_with([user_hop, narrow_hop, agent_hop], true)
}

test_an_agent_anywhere_in_the_chain_is_included_but_never_the_user if {
	inner := {"id": "notes-v1", "issuer": "https://countersign.example"}
	user := alice
	long := input_with([user_hop, narrow_hop, agent_hop], true)
	short := input_with([user_hop, agent_hop], true)
	delegation.includes(inner) with input as long
	not delegation.includes(inner) with input as short
	not delegation.includes({"id": "notes-v1", "issuer": "https://other.example"}) with input as long
	not delegation.includes(user) with input as long
}

test_a_chain_that_only_nested_act_names_is_not_fully_verified if {
	delegation.fully_verified with input as input_with([user_hop, agent_hop], true)
	not delegation.fully_verified with input as input_with([user_hop, act_hop, agent_hop], true)
}

test_the_agents_of_a_chain_are_all_known_or_not if {
	planner := {"id": "notes-v1", "issuer": "https://countersign.example"}
	support := {"id": "support-v2", "issuer": "https://countersign.example"}
	stranger := {"id": "notes-v1", "issuer": "https://other.example"}
	long := input_with([user_hop, narrow_hop, agent_hop], true)
	delegation.only([planner, support]) with input as long
	not delegation.only([support]) with input as long
	not delegation.only([stranger, support]) with input as long
	not delegation.only([planner]) with input as input_with([user_hop], true)
	not delegation.only([]) with input as input_with([], true)
}

usd(minor) := {"minor": minor, "currency": "USD", "text": "x"}

cap(max) := {"max": max, "one_of": null, "sum": null, "window": null}

choice(values) := {"max": {"minor": null, "currency": null, "text": null}, "one_of": values, "sum": null, "window": null}

daily(max) := {"max": max, "one_of": null, "sum": "amount", "window": "P1D"}

held := {
	"scope": ["orders.read", "refunds.create"],
	"details": [{
		"actions": ["orders.read", "refunds.create"],
		"identifier": "orders/*",
		"limits": {"amount": cap(usd(5000)), "reason": choice(["late", "broken"]), "day": daily(usd(20000))},
		"locations": ["orders"],
		"where": {"order.placed_by": "$user"},
	}],
}

with_element(change) := object.union(held, {"details": [object.union(held.details[0], change)]})

with_limit(name, limit) := with_element({"limits": object.union(held.details[0].limits, {name: limit})})

test_what_is_the_same_or_less_is_narrower if {
	delegation.narrower(held, held)
	delegation.narrower(object.union(held, {"scope": ["orders.read"]}), held)
	delegation.narrower(object.union(held, {"scope": [], "details": []}), held)
	delegation.narrower(with_element({"actions": ["orders.read"], "identifier": "orders/17"}), held)
	delegation.narrower(with_limit("amount", cap(usd(4999))), held)
	delegation.narrower(with_limit("reason", choice(["late"])), held)
	delegation.narrower(with_limit("day", daily(usd(1))), held)
	delegation.narrower(with_limit("more", cap(usd(1))), held)
	delegation.narrower(with_element({"where": {"order.placed_by": "$user", "order.status": "open"}}), held)
}

test_what_is_more_in_anything_is_not_narrower if {
	every child in [
		object.union(held, {"scope": ["orders.read", "orders.delete"]}),
		with_element({"actions": ["orders.delete"]}),
		with_element({"locations": ["orders", "billing"]}),
		with_element({"identifier": "**"}),
		with_limit("amount", cap(usd(5001))),
		with_limit("amount", cap({"minor": 1, "currency": "EUR", "text": "0.01"})),
		with_limit("amount", daily(usd(1))),
		with_limit("reason", choice(["late", "lost"])),
		with_limit("reason", cap(usd(1))),
		with_limit("day", daily(usd(20001))),
		with_limit("day", object.union(daily(usd(1)), {"window": "PT1H"})),
		with_element({"where": {"order.placed_by": "$agent"}}),
		object.union(held, {"details": [object.remove(held.details[0], ["limits"])]}),
		object.union(held, {"details": [object.remove(held.details[0], ["where"])]}),
		object.union(held, {"details": array.concat(held.details, [object.union(held.details[0], {"identifier": "**"})])}),
	] {
		not delegation.narrower(child, held)
	}
}

test_what_is_not_known_is_not_narrower if {
	not delegation.narrower(object.union(held, {"details": null}), held)
	not delegation.narrower(object.union(held, {"scope": null}), held)
	not delegation.narrower(held, object.union(held, {"details": null}))
	not delegation.narrower(held, object.union(held, {"scope": null}))
	not delegation.narrower(null, held)
	not delegation.narrower(held, null)
}
