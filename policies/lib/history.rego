# What was done before: the counters of the cumulative limits that this call would be charged against, as they stand
# before it. The sidecar hands them in; what was never counted is not known, and nothing is provable of it. A name may be
# counted at several hops of the chain: the fullest counter is the one that speaks.
#
#     import data.countersign.lib.history
#
#     approval contains {"code": "nearly_spent"} if {
#         input.action.name == "refunds.create"
#         not history.below("daily_refunds", 80)
#     }
package countersign.lib.history

# The counters called `name`: [{"used", "remaining", "max", "window", "hop"}].
counters(name) := [counter | some counter in input.limits; counter.name == name]

# Whether something is counted under `name`.
is_counted(name) if count(counters(name)) > 0

# Whether every counter called `name` has used less than `percent` of what it allows, before this call. False where
# nothing is counted.
below(name, percent) if {
	is_counted(name)
	every counter in counters(name) {
		is_number(counter.used.minor)
		is_number(counter.max.minor)
		counter.used.minor * 100 < counter.max.minor * percent
	}
}

# Whether nothing was charged in the window yet. False where nothing is counted.
is_first(name) if {
	is_counted(name)
	every counter in counters(name) {
		counter.used.minor == 0
	}
}

# Whether at least `amount` ({minor, currency}) is left at every counter called `name`.
leaves(name, amount) if {
	is_counted(name)
	every counter in counters(name) {
		is_number(counter.remaining.minor)
		is_number(amount.minor)
		counter.remaining.currency == amount.currency
		counter.remaining.minor >= amount.minor
	}
}
