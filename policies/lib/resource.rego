# Names of resources (`orders/17`) and patterns over them, with the rules that tokens and grants go by: a segment is a
# literal, `*` (any one), or as the last `**` (one or more). What is no pattern matches nothing.
#
#     import data.countersign.lib.resource
#
#     deny contains {"code": "payroll_is_closed"} if {
#         resource.matches(input.action.resource, "files/payroll/**")
#     }
package countersign.lib.resource

# Whether `pattern` names `name`.
matches(name, pattern) if {
	is_string(name)
	is_string(pattern)
	wanted := split(pattern, "/")
	segments := split(name, "/")
	long_enough(count(segments), count(wanted), is_open(wanted))
	every i, part in wanted {
		takes(part, segments[i], i, count(wanted) - 1)
	}
}

# Whether every resource that `pattern` names, `wider` names too.
within(pattern, wider) if {
	is_pattern(pattern)
	is_string(wider)
	own := split(pattern, "/")
	wide := split(wider, "/")

	# One that is not open holds none that is, and none of another length.
	wider_ends(count(own), count(wide), is_open(own), is_open(wide))
	every i, part in wide {
		holds(part, own[i], i, count(wide) - 1)
	}
}

# Whether `text` is a pattern.
is_pattern(text) if {
	is_string(text)
	parts := split(text, "/")
	every i, part in parts {
		is_segment(part, i, count(parts) - 1)
	}
}

# The first segment, which says what it is: `orders` of `orders/17`.
kind(name) := split(name, "/")[0] if is_string(name)

# The last segment, which says which one: `17` of `orders/17`. Undefined for a name of one segment.
id(name) := segments[count(segments) - 1] if {
	is_string(name)
	segments := split(name, "/")
	count(segments) > 1
}

is_open(parts) := parts[count(parts) - 1] == "**"

long_enough(segments, parts, false) if segments == parts

long_enough(segments, parts, true) if segments >= parts

takes("**", _, i, last) if i == last

takes("*", segment, _, _) if segment != ""

takes(part, segment, _, _) if {
	part == segment
	is_literal(part)
}

wider_ends(own, wide, false, false) if own == wide

wider_ends(own, wide, _, true) if own >= wide

holds("**", _, i, last) if i == last

holds("*", segment, _, _) if segment != "**"

holds(part, segment, _, _) if {
	part == segment
	is_literal(part)
}

is_segment(part, _, _) if is_literal(part)

is_segment(part, _, _) if part == "*"

is_segment("**", i, last) if i == last

is_literal(part) if {
	part != ""
	not contains(part, "*")
}
