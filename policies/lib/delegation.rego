# Who acts for whom, and whether everybody between the user and the tool may.
#
#     import data.countersign.lib.delegation
#
#     allow contains {"code": "own_order"} if {
#         delegation.covers(input.action)
#         delegation.is_user(input.facts.order.placed_by)
#     }
package countersign.lib.delegation

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

# Whether every hop rests on the issuer's signature, none only on nested `act`.
fully_verified if {
	every hop in input.chain {
		hop.verified != "nested_act"
	}
}
