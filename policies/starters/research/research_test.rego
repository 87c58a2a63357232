package countersign.teams.research_test

import data.countersign.teams.research

call(action, effect, name) := {
	"action": {"name": action, "effect": effect, "resource": name, "parameters": {"limit": 10}},
	"chain": [{"kind": "user", "covers": true}, {"kind": "agent", "covers": true}],
	"delegation": {"covers": true},
	"facts": {"document": {"label": "internal"}},
}

denied(given) := {reason.code | some reason in research.deny with input as given}

allowed(given) := {reason.code | some reason in research.allow with input as given}

read := call("documents.read", "read", "documents/handbook")

test_an_open_document_is_read if {
	denied(read) == set()
	allowed(read) == {"reads_within_grant"}
}

test_what_the_grant_does_not_cover_is_not_read if {
	allowed(object.union(read, {"delegation": {"covers": false}})) == set()
}

test_nothing_is_changed if {
	every effect in ["draft", "write"] {
		write := call("documents.create", effect, "documents/handbook")
		"reads_only" in denied(write)
		allowed(write) == set()
	}
}

test_a_confidential_document_is_not_read_wherever_that_is_said if {
	by_place := call("documents.read", "read", "documents/board/2026/minutes")
	denied(by_place) == {"confidential"}
	allowed(by_place) == set()
	by_label := object.union(read, {"facts": {"document": {"label": "secret"}}})
	denied(by_label) == {"confidential"}
	allowed(by_label) == set()
}

test_a_document_of_which_nothing_is_known_is_not_read if {
	denied(object.union(read, {"facts": {"document": {"label": null}}})) == {"confidential"}
	denied(object.remove(read, ["facts"])) == {"confidential"}
}

test_a_search_is_bounded if {
	search := call("documents.search", "read", "documents")
	denied(search) == set()
	allowed(search) == {"reads_within_grant"}
	many := object.union(search, {"action": {"parameters": {"limit": 51}}})
	denied(many) == {"too_many_results"}
	denied(object.union(search, {"action": {"parameters": {"limit": null}}})) == {"too_many_results"}
}
