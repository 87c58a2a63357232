package countersign.org_test

import data.countersign.org

call := {
	"action": {"effect": "write"},
	"agent": {"owner": "dana@acme.example"},
	"chain": [{"kind": "user", "verified": "delegation_chain"}, {"kind": "agent", "verified": "token"}],
	"tenant": "acme",
	"user": {"tenant": "acme", "acr": "urn:example:acr:mfa"},
}

codes(given) := {reason.code | some reason in org.deny with input as given}

test_an_ordinary_write_is_not_denied if codes(call) == set()

test_a_long_chain_is_denied if {
	agents := [{"kind": "agent", "verified": "token"} | some _ in [1, 2]]
	codes(object.union(call, {"chain": array.concat(call.chain, agents)})) == set()
	longer := array.concat(agents, [{"kind": "agent", "verified": "token"}])
	codes(object.union(call, {"chain": array.concat(call.chain, longer)})) == {"chain_too_long"}
}

test_an_agent_that_only_nested_act_names_reads_and_does_not_write if {
	named := object.union(call, {"chain": array.concat(call.chain, [{"kind": "agent", "verified": "nested_act"}])})
	codes(named) == {"chain_not_proved"}
	codes(object.union(named, {"action": {"effect": "read"}})) == set()
}

test_only_users_of_the_tenant_write if {
	codes(object.union(call, {"user": {"tenant": "globex", "acr": "urn:example:acr:mfa"}})) == {"foreign_tenant"}
	codes(object.union(call, {"user": {"tenant": null, "acr": "urn:example:acr:mfa"}})) == {"foreign_tenant"}
	codes(object.union(call, {"user": {"tenant": null}, "action": {"effect": "read"}})) == set()
}

test_an_agent_without_an_owner_writes_nothing if {
	codes(object.union(call, {"agent": {"owner": ""}})) == {"nobody_owns_the_agent"}
	codes(object.union(call, {"agent": {"owner": ""}, "action": {"effect": "draft"}})) == set()
}

test_a_weak_or_unknown_login_writes_nothing if {
	codes(object.union(call, {"user": {"tenant": "acme", "acr": "urn:example:acr:password"}})) == {"weak_login"}
	codes(object.union(call, {"user": {"tenant": "acme", "acr": null}})) == {"weak_login"}
	codes(object.union(call, {"user": {"tenant": "acme", "acr": null}, "action": {"effect": "read"}})) == set()
}
