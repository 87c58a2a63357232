# Amounts of money ({minor, currency}), compared only where they can be: null and two currencies never are.
#
#     import data.countersign.lib.money
#
#     approval contains {"code": "large_refund"} if {
#         not money.at_most(input.action.parameters.amount, {"minor": 10000, "currency": "USD"})
#     }
package countersign.lib.money

# Whether both are amounts of one currency. Two plain numbers have the currency null.
comparable(a, b) if {
	is_number(a.minor)
	is_number(b.minor)
	a.currency == b.currency
}

# Whether `a` is provably no more than `b`.
at_most(a, b) if {
	comparable(a, b)
	a.minor <= b.minor
}

# Whether `a` is provably no less than `b`.
at_least(a, b) if {
	comparable(a, b)
	a.minor >= b.minor
}

# Whether `amount` is in `currency` and above zero.
is_positive(amount, currency) if {
	amount.currency == currency
	is_number(amount.minor)
	amount.minor > 0
}

# The sum of amounts of one currency; undefined for none, for two currencies and for an amount that is null.
sum_of(amounts) := {"minor": total, "currency": currency} if {
	every amount in amounts {
		is_number(amount.minor)
	}
	currencies := {amount.currency | some amount in amounts}
	count(currencies) == 1
	some currency in currencies
	total := sum([amount.minor | some amount in amounts])
}
