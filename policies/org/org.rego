# The platform team's policy, for every call of every tool. It may deny and ask for approval; it never allows.
package countersign.org

import data.countersign.lib.delegation
import data.countersign.lib.tenant

# The most agents between a user and a tool.
max_depth := 4

deny contains {"code": "chain_too_long", "message": "Too many agents stand between the user and this call."} if {
	delegation.depth > max_depth
}

deny contains {"code": "foreign_tenant", "message": "A user of another tenant may read here, not write."} if {
	input.action.effect != "read"
	tenant.is_foreign
}

# A task whose sensitivity nobody stated counts as high.
deny contains {
	"code": "agent_without_owner",
	"message": "An agent without an accountable owner may not write sensitive data.",
} if {
	input.action.effect == "write"
	input.task.sensitivity == "high"
	trim_space(input.agent.owner) == ""
}

# Asked by the authority before a token is issued, in its own configuration. What is sensitive is not handed from agent to
# agent.
delegate contains {"code": "within_grant"} if not hands_on_sensitive

hands_on_sensitive if {
	input.exchange.from.kind == "agent"
	input.exchange.task.sensitivity == "high"
}
