package countersign.lib.testing_test

import data.countersign.lib.delegation
import data.countersign.lib.testing

test_a_call_has_every_part_and_says_what_is_asked_for if {
	given := testing.call("refunds.create", {"user": {"id": "bob"}, "task": {"sensitivity": "low"}})
	given.action.name == "refunds.create"
	given.action.effect == "write"
	given.task.sensitivity == "low"
	given.task.stage == "supervised"
	given.approval == null
	given.chain[0].id == "bob"
	given.chain[1].id == given.agent.id
	delegation.covers(given.action) with input as given
}

test_a_chain_of_ones_own_is_taken_as_it_is if {
	given := testing.call("refunds.create", {"chain": [{"kind": "user"}]})
	given.chain == [{"kind": "user"}]
}

test_a_member_that_there_is_none_of_is_not_made_up if {
	not testing.call("refunds.create", {"usre": {}})
	not testing.call("refunds.create", {"user": {"nmae": "bob"}})
	not testing.exchange({"exchange": {"form": {}}})
	not testing.manage("agents.read", {"objekt": {}})
}

test_a_token_to_be_issued_and_something_to_manage if {
	issued := testing.exchange({"exchange": {"from": {"kind": "agent"}}})
	issued.exchange.from.kind == "agent"
	issued.exchange.to.id == "support-v2"
	issued.grant.redelegate == 1
	managed := testing.manage("agents.suspend", {"object": {"tenants": ["globex"]}})
	managed.operation == "agents.suspend"
	managed.object.tenants == ["globex"]
	managed.caller.id == "alice"
}

test_money_is_written_as_people_write_it if {
	testing.money(2005, "USD") == {"minor": 2005, "currency": "USD", "text": "20.05"}
}
