package countersign.lib.history_test

import data.countersign.lib.history

usd(minor) := {"minor": minor, "currency": "USD", "text": "x"}

counter(used, hop) := {
	"name": "daily", "max": usd(20000), "used": usd(used), "remaining": usd(20000 - used), "window": "P1D", "hop": hop,
}

counted(used) := {"limits": [counter(used, 1), counter(0, 2)]}

none := {"limits": []}

test_the_fullest_counter_speaks if {
	history.below("daily", 80) with input as counted(15999)
	not history.below("daily", 80) with input as counted(16000)
	history.is_first("daily") with input as counted(0)
	not history.is_first("daily") with input as counted(1)
}

test_what_is_left_is_compared_in_its_currency if {
	enough := usd(100)
	more := usd(101)
	other := {"minor": 1, "currency": "EUR"}
	history.leaves("daily", enough) with input as counted(19900)
	not history.leaves("daily", more) with input as counted(19900)
	not history.leaves("daily", other) with input as counted(0)
	not history.leaves("daily", null) with input as counted(0)
}

test_what_is_not_counted_proves_nothing if {
	not history.is_counted("daily") with input as none
	not history.below("daily", 100) with input as none
	not history.is_first("daily") with input as none
	nothing := usd(0)
	not history.leaves("daily", nothing) with input as none
	not history.below("weekly", 100) with input as counted(0)
}

test_a_counter_that_cannot_be_read_proves_nothing if {
	absent := {"minor": null, "currency": null, "text": null}
	given := {"limits": [object.union(counter(0, 1), {"used": absent, "remaining": absent})]}
	not history.is_first("daily") with input as given
	not history.below("daily", 80) with input as given
	nothing := usd(0)
	not history.leaves("daily", nothing) with input as given
}
