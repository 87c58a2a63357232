package countersign.lib.resource_test

import data.countersign.lib.resource

test_a_pattern_matches_whole_segments if {
	resource.matches("orders/17", "orders/17")
	resource.matches("orders/17", "orders/*")
	resource.matches("orders/17/refunds", "orders/**")
	resource.matches("orders/17/refunds", "**")
	resource.matches("orders/17/refunds", "orders/*/refunds")
	not resource.matches("orders/17", "orders/1")
	not resource.matches("orders/17/refunds", "orders/*")
	not resource.matches("orders", "orders/**")
	not resource.matches("orders", "orders/*")
	not resource.matches("orders/", "orders/*")
	not resource.matches("customers/17", "orders/*")
}

test_what_is_no_pattern_matches_nothing if {
	every pattern in ["", "orders/", "/orders", "or*", "**/17", "orders/**/17", "orders/***"] {
		not resource.is_pattern(pattern)
		not resource.matches("orders/17", pattern)
		not resource.matches("orders/x/17", pattern)
		not resource.within(pattern, "**")
		not resource.within("orders/17", pattern)
	}
}

test_what_is_no_name_matches_nothing if {
	not resource.matches(null, "**")
	not resource.matches(17, "**")
	not resource.matches("orders/17", null)
}

test_a_pattern_lies_within_another_or_does_not if {
	resource.within("orders/17", "orders/17")
	resource.within("orders/17", "orders/*")
	resource.within("orders/*", "orders/*")
	resource.within("orders/*", "orders/**")
	resource.within("orders/*/refunds", "orders/**")
	resource.within("orders/**", "orders/**")
	resource.within("orders/**", "**")
	not resource.within("orders/*", "orders/17")
	not resource.within("orders/**", "orders/*")
	not resource.within("**", "orders/**")
	not resource.within("orders", "orders/**")
	not resource.within("orders/17/refunds", "orders/*")
	not resource.within("customers/17", "orders/*")
	not resource.within("orders/17", "orders/17/refunds")
}

# What lies within names no more: said of every pattern and name of a small world.
test_what_lies_within_names_no_more if {
	patterns := ["a", "a/a", "a/b", "a/*", "*/b", "*/*", "a/**", "*/**", "**", "a/b/a", "a/*/a"]
	names := ["a", "b", "a/a", "a/b", "b/b", "a/b/a", "a/a/a", "b/a/b/a"]
	every narrow in patterns {
		every wide in patterns {
			keeps(narrow, wide, names)
		}
	}
}

keeps(narrow, wide, _) if not resource.within(narrow, wide)

keeps(narrow, wide, names) if {
	resource.within(narrow, wide)
	every name in [name | some name in names; resource.matches(name, narrow)] {
		resource.matches(name, wide)
	}
}

test_a_name_says_what_it_is_and_which if {
	resource.kind("orders/17") == "orders"
	resource.id("orders/17") == "17"
	resource.id("files/payroll/2026") == "2026"
	not resource.id("orders")
}
