# The platform team's rules: for every call to every tool. They can deny; they cannot allow.
package countersign.org

deny contains {"code": "sensitive_writes_need_a_present_user", "message": "Writes on highly sensitive data need the user to be there."} if {
	input.action.effect == "write"
	input.task.sensitivity == "high"
	input.task.presence == "owner"
}
