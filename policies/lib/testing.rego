# Inputs for tests, whole and of the shape a sidecar or an authority gives, so that a test says only what it is about. For
# tests alone: no policy that decides may use it.
#
#     import data.countersign.lib.testing
#
#     test_a_closed_order_is_not_refunded if {
#         given := testing.call("refunds.create", {"facts": {"order": {"status": "closed"}}})
#         support.deny[_].code == "refund_closed_order" with input as given
#     }
#
# What `overrides` says is put over what is there, objects member by member. A member that there is none of makes the
# input undefined and is printed, so that a misspelt one does not pass unseen.
package countersign.lib.testing

# A call of `action`: by alice through support-v2, covered by everything she and the agent hold, on a resource of the
# action's, its required parameters there, optional ones and facts null. A fact that names somebody names alice. Without a
# catalogue, parameters and facts are what `overrides` says.
call(action, overrides) := made if {
	base := call_base(action)
	fits(base, overrides, {"action", "agent", "call", "delegation", "task", "user"})
	fits_declared(base, overrides)
	made := chained(object.union(base, overrides), overrides)
}

# A token to be issued (`delegate`): alice passes everything the catalogue has on to support-v2.
exchange(overrides) := made if {
	base := data.countersign.lib.testing_base.exchange
	fits(base, overrides, {"exchange", "grant", "user"})
	made := object.union(base, overrides)
}

# Something to be managed (`manage`): alice does `operation` to an agent of her tenant.
manage(operation, overrides) := made if {
	base := data.countersign.lib.testing_base.management
	fits(base, overrides, {"caller", "object"})
	made := object.union(object.union(base, {"operation": operation}), overrides)
}

# An amount of money as a parameter has it, with two fraction digits: usd-like currencies alone.
money(minor, currency) := {
	"minor": minor,
	"currency": currency,
	"text": sprintf("%d.%02d", [floor(minor / 100), minor % 100]),
}

call_base(action) := data.countersign.lib.testing_base.calls[action]

call_base(action) := made if {
	not data.countersign.lib.testing_base.calls
	made := object.union(data.countersign.lib.testing_base.call, {"action": {"name": action}})
}

fits(base, overrides, parts) if {
	unknown := strangers(base, overrides) | {name |
		some part in parts
		some found in strangers(base[part], object.get(overrides, part, {}))
		name := concat(".", [part, found])
	}
	none(unknown)
}

fits_declared(base, overrides) if {
	not data.countersign.lib.testing_base.calls
}

fits_declared(base, overrides) if {
	data.countersign.lib.testing_base.calls
	given := object.get(overrides, "facts", {})
	parameters := object.get(object.get(overrides, "action", {}), "parameters", {})
	leaves := {name |
		some fact, own in given
		some found in strangers(object.get(base.facts, fact, {}), own)
		name := concat(".", [fact, found])
	}
	none((strangers(base.action.parameters, parameters) | strangers(base.facts, given)) | leaves)
}

# The members of `overrides` that `base` does not have.
strangers(base, overrides) := {name | some name, _ in overrides; not has(base, name)}

has(base, name) if name in object.keys(base)

none(unknown) if count(unknown) == 0

none(unknown) if {
	count(unknown) > 0
	print("testing: there is no", unknown)
	false
}

# Who acts is in the chain too: the user first, the calling agent last.
chained(made, overrides) := made if overrides.chain

chained(made, overrides) := object.union(made, {"chain": [
	object.union(made.chain[0], {"id": made.user.id, "issuer": made.user.issuer}),
	object.union(made.chain[1], {"id": made.agent.id, "issuer": made.agent.issuer}),
]}) if {
	not overrides.chain
}
