# Who acts for whom, and whether everybody between the user and the tool may.
#
#     import data.countersign.lib.delegation
#
#     allow contains {"code": "own_order"} if {
#         delegation.covers(input.action)
#         delegation.is_user(input.facts.order.placed_by)
#     }
package countersign.lib.delegation

import data.countersign.lib.money
import data.countersign.lib.resource

# Whether `principal` ({id, issuer}, as a fact names one) is the user. Null, and a name of another issuer, is not.
is_user(principal) if {
	principal.id == input.user.id
	principal.issuer == input.user.issuer
}

# Whether `principal` is the agent that makes the call.
is_agent(principal) if {
	principal.id == input.agent.id
	principal.issuer == input.agent.issuer
}

# Whether the token, and every hop that holds authority, covers this call's action, tool, resource and limits.
# The guard has refused the call before where that is not so; a policy that says it again stays right on its own.
covers(action) if {
	action.name == input.action.name
	input.delegation.covers == true
	every hop in input.chain {
		hop.covers != false
	}
}

# How many agents there are between the user and the tool; 1 where the user delegated to the calling agent itself.
depth := count(input.chain) - 1

# Whether `agent` ({id, issuer}) is one of them.
includes(agent) if {
	some hop in input.chain
	hop.kind != "user"
	hop.id == agent.id
	hop.issuer == agent.issuer
}

# The agents of the chain, the one that the user delegated to first.
agents := [hop | some hop in input.chain; hop.kind != "user"]

# Whether every agent of the chain is one of `allowed`, a set or list of {id, issuer}. False for a chain without one.
only(allowed) if {
	count(agents) > 0
	known := {[agent.id, agent.issuer] | some agent in allowed}
	every agent in agents {
		[agent.id, agent.issuer] in known
	}
}

# Whether `child` ({scope, details}, as a hop, a request and a grant have them) allows nothing that `parent` does not:
# every action it names, and each of its elements within one of the parent's. What is null is not known, and proves nothing.
narrower(child, parent) if {
	is_array(child.scope)
	is_array(parent.scope)
	is_array(child.details)
	is_array(parent.details)
	is_subset(child.scope, parent.scope)
	every element in child.details {
		some wide in parent.details
		element_within(element, wide)
	}
}

element_within(element, wide) if {
	is_subset(element.actions, wide.actions)
	is_subset(element.locations, wide.locations)
	resource.within(element.identifier, wide.identifier)
	every name, limit in wide.limits {
		limit_within(element.limits[name], limit)
	}
	every relation, value in wide.where {
		element.where[relation] == value
	}
}

limit_within(limit, wide) if {
	# A cap on a parameter, or on what is counted over the same window.
	wide.one_of == null
	limit.one_of == null
	limit.window == wide.window
	limit.sum == wide.sum
	money.at_most(limit.max, wide.max)
}

limit_within(limit, wide) if {
	is_array(wide.one_of)
	is_array(limit.one_of)
	is_subset(limit.one_of, wide.one_of)
}

is_subset(some_of, all_of) if {
	held := {one | some one in all_of}
	every one in some_of {
		one in held
	}
}

# Whether every hop rests on the issuer's signature, none only on nested `act`.
fully_verified if {
	every hop in input.chain {
		hop.verified != "nested_act"
	}
}
