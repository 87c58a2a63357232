package countersign.lib.money_test

import data.countersign.lib.money

usd(minor) := {"minor": minor, "currency": "USD", "text": "x"}

absent := {"minor": null, "currency": null, "text": null}

test_amounts_of_one_currency_compare if {
	money.at_most(usd(10000), usd(10000))
	not money.at_most(usd(10001), usd(10000))
	money.at_least(usd(10000), usd(10000))
	not money.at_least(usd(9999), usd(10000))
}

test_amounts_of_two_currencies_are_neither_more_nor_less if {
	not money.at_most({"minor": 1, "currency": "EUR"}, usd(10000))
	not money.at_least({"minor": 100000, "currency": "EUR"}, usd(10000))
}

test_an_absent_amount_is_neither_more_nor_less if {
	not money.at_most(absent, usd(10000))
	not money.at_least(absent, usd(0))
	not money.at_most(absent, absent)
	not money.at_most(null, usd(1))
	not money.at_most({"minor": 1}, {"minor": 2})
	not money.at_most({"minor": "1", "currency": "USD"}, usd(2))
}

test_plain_numbers_compare_with_plain_numbers if {
	money.at_most({"minor": 3, "currency": null}, {"minor": 5, "currency": null})
	not money.at_most({"minor": 3, "currency": null}, usd(5))
}

test_a_positive_amount_is_above_zero_in_its_currency if {
	money.is_positive(usd(1), "USD")
	not money.is_positive(usd(0), "USD")
	not money.is_positive(usd(1), "EUR")
	not money.is_positive(absent, "USD")
}

test_a_sum_is_of_one_currency if {
	money.sum_of([usd(1), usd(1), usd(3)]) == {"minor": 5, "currency": "USD"}
	not money.sum_of([usd(1), {"minor": 1, "currency": "EUR"}])
	not money.sum_of([usd(1), absent])
	not money.sum_of([])
}
