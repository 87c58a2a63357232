# The moment of the decision, and windows around it. There is no other clock, so that a decision can be looked at
# again. A time or a zone that is not one is an error, and an error denies.
#
#     import data.countersign.lib.clock
#
#     deny contains {"code": "outside_office_hours"} if not clock.within_hours("Europe/Berlin", 8, 18)
package countersign.lib.clock

# Whether the RFC 3339 time `text` is still to come.
before(text) if input.now_ns < time.parse_rfc3339_ns(text)

# Whether the RFC 3339 time `text` has passed, or is now.
after(text) if input.now_ns >= time.parse_rfc3339_ns(text)

# Whether the hour of the day in `zone` (an IANA name) is from `from` on and before `until`.
within_hours(zone, from, until) if {
	[hour, _, _] := time.clock([input.now_ns, zone])
	hour >= from
	hour < until
}

# Whether the time of day in `zone` is from `from` on and before `until`, both as "08:30". Where `from` is the later one,
# the window goes over midnight.
within_times(zone, from, until) if {
	is_time(from)
	is_time(until)

	# Written with two digits each, times of day are in the order of their text.
	from <= until
	now := time_of_day(zone)
	now >= from
	now < until
}

within_times(zone, from, until) if {
	is_time(from)
	is_time(until)
	from > until
	outside(time_of_day(zone), until, from)
}

outside(now, from, _) if now < from

outside(now, _, until) if now >= until

time_of_day(zone) := sprintf("%02d:%02d", [hour, minute]) if [hour, minute, _] := time.clock([input.now_ns, zone])

is_time(text) if {
	is_string(text)
	regex.match(`^([01][0-9]|2[0-3]):[0-5][0-9]$`, text)
}

# The day of the week in `zone`: "Monday".
weekday(zone) := time.weekday([input.now_ns, zone])

# Whether it is Monday to Friday in `zone`.
is_workday(zone) if not weekday(zone) in {"Saturday", "Sunday"}

# Whether `text`, an RFC 3339 time that has passed, is no more than `seconds` old.
within_seconds(text, seconds) if {
	age := input.now_ns - time.parse_rfc3339_ns(text)
	age >= 0
	age <= seconds * 1000000000
}
