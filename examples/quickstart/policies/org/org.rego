# The platform team's rules: for every call to every tool. They can deny; they cannot allow.
package countersign.org

deny contains {"code": "sensitive_writes_need_a_present_user", "message": "Writes on highly sensitive data need the user to be there."} if {
	input.action.effect == "write"
	input.task.sensitivity == "high"

	# A token that does not say is no unattended task.
	is_string(input.task.presence)
	input.task.presence == "owner"
}
