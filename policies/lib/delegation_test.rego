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
