package countersign.teams.analytics_test

import data.countersign.teams.analytics

query := {
	"action": {
		"name": "queries.run",
		"resource": "datasets/acme/orders",
		"parameters": {"columns": ["country", "total"], "limit": 100},
	},
	"chain": [{"kind": "user", "covers": true}, {"kind": "agent", "covers": true}],
	"delegation": {"covers": true},
	"task": {"presence": "present"},
	"tenant": "acme",
	"user": {"tenant": "acme", "roles": []},
}

with_action(change) := object.union(query, {"action": change})

codes(reasons) := {reason.code | some reason in reasons}

test_a_question_about_ones_own_data_is_answered if {
	codes(analytics.allow) == {"query_within_tenant"} with input as query
	codes(analytics.deny) == set() with input as query
}

test_the_data_of_others_is_not if {
	every given in [
		with_action({"resource": "datasets/globex/orders"}),
		with_action({"resource": "datasets/acme"}),
		with_action({"resource": "datasets/acme2/orders"}),
		object.union(query, {"user": {"tenant": "globex"}}),
		object.union(query, {"user": {"tenant": null}}),
	] {
		codes(analytics.allow) == set() with input as given
		codes(analytics.deny) == {"foreign_data"} with input as given
	}
}

test_columns_that_name_people_need_the_role if {
	given := with_action({"parameters": {"columns": ["total", "email"]}})
	codes(analytics.deny) == {"names_people"} with input as given
	trusted := object.union(given, {"user": {"roles": ["people-data"]}})
	codes(analytics.deny) == set() with input as trusted
}

test_answers_do_not_name_people_to_who_has_no_role_for_it if {
	hidden := {"code": "people_hidden", "redact": ["/rows/*/email", "/rows/*/name", "/rows/*/phone"]}
	analytics.obligations == {hidden} with input as query
	trusted := object.union(query, {"user": {"roles": ["people-data"]}})
	analytics.obligations == set() with input as trusted
	export := with_action({"name": "exports.create"})
	analytics.obligations == set() with input as export
}

test_columns_are_named_plainly if {
	every column in ["EMAIL", "*", "c.email", "email AS x", "\"email\"", " email", "total\n", "", 7] {
		given := with_action({"parameters": {"columns": ["total", column]}})
		codes(analytics.deny) == {"columns_not_plain"} with input as given
	}
	plain := with_action({"parameters": {"columns": ["total_2", "country"]}})
	codes(analytics.deny) == set() with input as plain
}

test_a_question_names_its_columns_and_its_rows if {
	every columns in [null, []] {
		given := with_action({"parameters": {"columns": columns}})
		codes(analytics.deny) == {"columns_not_named"} with input as given
	}
	every limit in [10001, null] {
		given := with_action({"parameters": {"limit": limit}})
		codes(analytics.deny) == {"too_many_rows"} with input as given
	}
}

test_an_export_needs_somebody_at_the_keyboard if {
	export := with_action({"name": "exports.create"})
	codes(analytics.allow) == {"export_within_tenant"} with input as export
	codes(analytics.deny) == set() with input as export
	every presence in ["detached", "owner", null] {
		alone := object.union(export, {"task": {"presence": presence}})
		codes(analytics.allow) == set() with input as alone
		codes(analytics.deny) == {"nobody_there"} with input as alone
	}
}
