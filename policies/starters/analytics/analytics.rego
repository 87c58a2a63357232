# An analyst's agent: it asks questions of the data sets of its user's own tenant. Who may see people needs the role for it;
# what leaves the house needs somebody at the keyboard.
package countersign.teams.analytics

import data.countersign.lib.delegation
import data.countersign.lib.resource
import data.countersign.lib.stage
import data.countersign.lib.tenant

# Columns that name people, and the role that may see them.
personal := {"email", "name", "phone"}

people_role := "people-data"

most_rows := 10000

allow contains {"code": "query_within_tenant"} if {
	input.action.name == "queries.run"
	delegation.covers(input.action)
	own_data
}

allow contains {"code": "export_within_tenant"} if {
	input.action.name == "exports.create"
	delegation.covers(input.action)
	own_data
	stage.user_present
}

deny contains {"code": "foreign_data", "message": "Only the data sets of your own tenant."} if not own_data

deny contains {"code": "names_people", "message": "Columns that name people need the role for it."} if {
	some column in columns
	column in personal
	not people_role in input.user.roles
}

# One column has many names (`EMAIL`, `*`, `c.email`), and those above are compared as they are written.
deny contains {"code": "columns_not_plain", "message": "Name columns plainly: small letters, digits and `_`."} if {
	some column in columns
	not is_plain(column)
}

# A question that does not say which columns asks for all of them.
deny contains {"code": "columns_not_named", "message": "Name the columns."} if {
	input.action.name in {"queries.run", "exports.create"}
	not names_columns
}

deny contains {"code": "too_many_rows", "message": "Ask for fewer rows."} if {
	input.action.name == "queries.run"
	not few_rows
}

deny contains {"code": "nobody_there", "message": "An export needs somebody at the keyboard."} if {
	input.action.name == "exports.create"
	not stage.user_present
}

# Whatever the columns are called that were asked for: where an answer names people by these, nobody without the role is
# shown them. The tool has to answer in JSON for that.
obligations contains {"code": "people_hidden", "redact": ["/rows/*/email", "/rows/*/name", "/rows/*/phone"]} if {
	input.action.name == "queries.run"
	not people_role in input.user.roles
}

default own_data := false

own_data if {
	tenant.is_own
	resource.matches(input.action.resource, sprintf("datasets/%s/**", [input.tenant]))
}

# Empty where the question does not say: nothing can be looked up in what has no value.
columns := {column | is_array(input.action.parameters.columns); some column in input.action.parameters.columns}

is_plain(column) if {
	is_string(column)
	regex.match(`^[a-z][a-z0-9_]*$`, column)
}

names_columns if count(columns) > 0

few_rows if {
	is_number(input.action.parameters.limit)
	input.action.parameters.limit <= most_rows
}
