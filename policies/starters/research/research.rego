# An agent that reads, and does nothing else, whatever its token says: documents of the library, no confidential ones.
package countersign.teams.research

import data.countersign.lib.delegation
import data.countersign.lib.resource

# What nobody's agent reads.
confidential := ["documents/board/**", "documents/people/**"]

# The most results of one search.
most_results := 50

reads := {"documents.read", "documents.search"}

allow contains {"code": "reads_within_grant"} if {
	input.action.name in reads
	delegation.covers(input.action)
	not is_confidential
}

deny contains {"code": "reads_only", "message": "This agent reads; it changes nothing."} if {
	input.action.effect != "read"
}

deny contains {"code": "confidential", "message": "Confidential documents are for people to read."} if is_confidential

deny contains {"code": "too_many_results", "message": "Ask for fewer results."} if {
	input.action.name == "documents.search"
	not few_results
}

default is_confidential := false

is_confidential if {
	some pattern in confidential
	resource.matches(input.action.resource, pattern)
}

# What a document says of itself, where the library says it. A document of which that could not be read is confidential.
is_confidential if {
	input.action.name == "documents.read"
	not is_open
}

is_open if input.facts.document.label in {"public", "internal"}

# A search that does not say how many is one for all.
few_results if {
	is_number(input.action.parameters.limit)
	input.action.parameters.limit <= most_results
}
