package countersign.teams.planner_test

import data.countersign.teams.planner

hop(id) := {"kind": "agent", "id": id, "issuer": "https://countersign.example", "covers": true}

alice := {"kind": "user", "id": "alice", "issuer": "https://sso.example", "covers": true}

call(action, effect, agents) := {
	"action": {"name": action, "effect": effect},
	"chain": array.concat([alice], agents),
	"agent": agents[count(agents) - 1],
	"delegation": {"covers": true},
}

codes(reasons) := {reason.code | some reason in reasons}

test_the_planner_reads if {
	given := call("trips.read", "read", [hop("planner")])
	codes(planner.allow) == {"plans"} with input as given
	codes(planner.deny) == set() with input as given
}

test_the_planner_writes_nothing_itself if {
	given := call("bookings.create", "write", [hop("planner")])
	codes(planner.allow) == set() with input as given
	codes(planner.deny) == {"planner_plans"} with input as given
}

test_a_helper_writes_for_the_planner if {
	given := call("bookings.create", "write", [hop("planner"), hop("booker")])
	codes(planner.allow) == {"helper_acts"} with input as given
	codes(planner.deny) == set() with input as given
}

test_a_helper_on_its_own_writes_nothing if {
	given := call("bookings.create", "write", [hop("booker")])
	codes(planner.allow) == set() with input as given
	codes(planner.deny) == {"not_through_the_planner"} with input as given
}

test_a_stranger_in_the_chain_is_denied_wherever_it_stands if {
	every agents in [
		[hop("planner"), hop("stranger")],
		[hop("stranger"), hop("booker")],
		[hop("planner"), object.union(hop("booker"), {"issuer": "https://other.example"})],
	] {
		given := call("bookings.create", "write", agents)
		codes(planner.allow) == set() with input as given
		"unknown_helper" in codes(planner.deny) with input as given
	}
}

test_a_helper_of_a_helper_writes_nothing if {
	given := call("bookings.create", "write", [hop("planner"), hop("booker"), hop("mailer")])
	codes(planner.allow) == set() with input as given
	codes(planner.deny) == {"not_through_the_planner"} with input as given
}

detail(actions) := {
	"actions": actions, "identifier": "trips/*", "limits": {}, "locations": ["travel"], "where": {},
}

holds(principal, actions) := object.union(principal, {"scope": actions, "details": [detail(actions)]})

everything := ["bookings.create", "mails.draft", "trips.read"]

asked(from, to, actions) := {
	"exchange": {"from": from, "to": to, "requested": {"scope": actions, "details": [detail(actions)]}},
	"chain": [holds(alice, everything), holds(hop("planner"), everything)],
}

test_the_user_hands_work_to_the_planner_alone if {
	to_planner := asked(alice, hop("planner"), everything)
	codes(planner.delegate) == {"to_the_planner"} with input as to_planner
	to_helper := asked(alice, hop("booker"), everything)
	codes(planner.delegate) == set() with input as to_helper
}

test_the_planner_hands_less_than_it_holds_to_a_helper if {
	less := asked(hop("planner"), hop("booker"), ["bookings.create"])
	codes(planner.delegate) == {"to_a_helper"} with input as less
	as_much := asked(hop("planner"), hop("booker"), everything)
	codes(planner.delegate) == set() with input as as_much
	other := asked(hop("planner"), hop("booker"), ["payments.create"])
	codes(planner.delegate) == set() with input as other
	stranger := asked(hop("planner"), hop("stranger"), ["bookings.create"])
	codes(planner.delegate) == set() with input as stranger
	passed_on := asked(hop("booker"), hop("mailer"), ["mails.draft"])
	codes(planner.delegate) == set() with input as passed_on
}
