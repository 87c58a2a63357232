package countersign.org_test

import data.countersign.org

call := {
	"action": {"effect": "write"},
	"agent": {"owner": "dana@acme.example"},
	"chain": [{"kind": "user"}, {"kind": "agent"}],
	"task": {"sensitivity": "high"},
	"tenant": "acme",
	"user": {"tenant": "acme"},
}

codes(given) := {reason.code | some reason in org.deny with input as given}

test_an_ordinary_write_is_not_denied if codes(call) == set()

test_a_long_chain_is_denied if {
	agents := [{"kind": "agent"}, {"kind": "agent"}, {"kind": "agent"}, {"kind": "agent"}]
	codes(object.union(call, {"chain": array.concat([{"kind": "user"}], agents)})) == set()
	codes(object.union(call, {"chain": array.concat(call.chain, agents)})) == {"chain_too_long"}
}

test_a_user_of_another_tenant_reads_and_does_not_write if {
	foreign := object.union(call, {"user": {"tenant": "globex"}})
	codes(foreign) == {"foreign_tenant"}
	codes(object.union(foreign, {"action": {"effect": "draft"}})) == {"foreign_tenant"}
	codes(object.union(foreign, {"action": {"effect": "read"}})) == set()
	codes(object.union(call, {"user": {"tenant": null}})) == set()
}

test_an_agent_without_an_owner_writes_nothing_sensitive if {
	orphan := object.union(call, {"agent": {"owner": " "}})
	codes(orphan) == {"agent_without_owner"}
	codes(object.union(orphan, {"task": {"sensitivity": "low"}})) == set()
	codes(object.union(orphan, {"action": {"effect": "read"}})) == set()
}

issued(given) := {reason.code | some reason in org.delegate with input as given}

test_what_is_sensitive_is_not_handed_on if {
	by_user := {"exchange": {"from": {"kind": "user"}, "task": {"sensitivity": "high"}}}
	by_agent := {"exchange": {"from": {"kind": "agent"}, "task": {"sensitivity": "high"}}}
	harmless := {"exchange": {"from": {"kind": "agent"}, "task": {"sensitivity": "medium"}}}
	issued(by_user) == {"within_grant"}
	issued(by_agent) == set()
	issued(harmless) == {"within_grant"}
}
