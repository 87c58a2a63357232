package countersign.lib.stage_test

import data.countersign.lib.stage

at(name) := {"task": {"stage": name, "presence": null}}

test_the_ladder_has_an_order if {
	stage.at_least("observe") with input as at("observe")
	stage.at_least("draft") with input as at("supervised")
	not stage.at_least("supervised") with input as at("draft")
}

test_what_is_no_stage_is_never_reached if {
	not stage.at_least("root") with input as at("supervised")
	not stage.at_least("observe") with input as at("root")
	not stage.at_least("observe") with input as {}
}

test_presence_is_said_not_assumed if {
	stage.user_present with input as {"task": {"presence": "present"}}
	not stage.user_present with input as at("supervised")
}
