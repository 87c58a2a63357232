package countersign.lib.clock_test

import data.countersign.lib.clock

# Sunday, 2026-11-22T10:00:00Z
now := {"now_ns": 1795341600000000000}

test_a_time_is_before_or_after_now if {
	clock.before("2026-11-22T10:00:01Z") with input as now
	not clock.before("2026-11-22T10:00:00Z") with input as now
	clock.after("2026-11-22T10:00:00Z") with input as now
	not clock.after("2026-11-22T10:00:01+00:00") with input as now
	clock.after("2026-11-22T10:59:59+01:00") with input as now
}

test_hours_are_those_of_the_zone if {
	clock.within_hours("UTC", 10, 11) with input as now
	not clock.within_hours("UTC", 8, 10) with input as now
	clock.within_hours("Europe/Berlin", 11, 12) with input as now
}

test_the_weekday_is_that_of_the_zone if {
	clock.weekday("UTC") == "Sunday" with input as now
	not clock.is_workday("UTC") with input as now
	clock.is_workday("UTC") with input as {"now_ns": 1795428000000000000}
}

test_an_age_is_of_something_that_has_passed if {
	clock.within_seconds("2026-11-22T09:59:30Z", 60) with input as now
	not clock.within_seconds("2026-11-22T09:58:30Z", 60) with input as now
	not clock.within_seconds("2026-11-22T10:00:30Z", 60) with input as now
}

test_a_time_of_day_is_within_a_window if {
	clock.within_times("UTC", "10:00", "10:01") with input as now
	not clock.within_times("UTC", "09:00", "10:00") with input as now
	not clock.within_times("UTC", "10:01", "18:00") with input as now
	clock.within_times("Europe/Berlin", "11:00", "11:30") with input as now
}

test_a_window_may_go_over_midnight if {
	clock.within_times("UTC", "22:00", "10:30") with input as now
	clock.within_times("UTC", "09:30", "06:00") with input as now
	not clock.within_times("UTC", "22:00", "10:00") with input as now
	not clock.within_times("UTC", "12:00", "12:00") with input as now
}

test_what_is_no_time_of_day_is_no_window if {
	every text in ["24:00", "8:30", "08:60", "0830", "", "aa:bb"] {
		not clock.within_times("UTC", text, "23:59") with input as now
		not clock.within_times("UTC", "00:00", text) with input as now
	}
}
