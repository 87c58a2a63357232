# The platform team's policy, for every call of every tool. It may deny and ask for approval; it never allows.
package countersign.org

import data.countersign.lib.delegation
import data.countersign.lib.tenant

# The most agents between a user and a tool.
max_depth := 3

# How users have to be authenticated (`acr`) before anything is written for them.
strong_enough := {"urn:example:acr:mfa", "urn:example:acr:hardware"}

deny contains {"code": "chain_too_long", "message": "Too many agents stand between the user and this call."} if {
	delegation.depth > max_depth
}

deny contains {"code": "chain_not_proved", "message": "Every agent in the chain has to be vouched for by the issuer."} if {
	input.action.effect != "read"
	not delegation.fully_verified
}

deny contains {"code": "foreign_tenant", "message": "Only users of the tenant may change its data."} if {
	input.action.effect != "read"
	not tenant.is_own
}

deny contains {"code": "nobody_owns_the_agent", "message": "An agent needs an accountable owner before it may write."} if {
	input.action.effect == "write"
	trim_space(input.agent.owner) == ""
}

deny contains {"code": "weak_login", "message": "Log in with a second factor first."} if {
	input.action.effect == "write"
	not strongly_authenticated
}

# What has no value (null) is in no set.
strongly_authenticated if input.user.acr in strong_enough
